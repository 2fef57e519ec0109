"""XMP packets: the mark of what a trained model made, and our record in files without text chunks.

Adobe, "XMP Specification, Part 1: Data Model, Serialization, and Core Properties" (ISO 16684-1).
"""

from xml.etree import ElementTree
from xml.sax.saxutils import escape

# IPTC, "Digital Source Type NewsCodes"; the property is of the IPTC Extension schema.
_MARK = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_OURS = "urn:sd-pipeline:record/1.0/"


def packet(record: str | None = None) -> str:
    """Return a packet with IPTC's mark and, where it is given, our record's JSON."""
    inner = "" if record is None else f"<sd:record>{escape(record)}</sd:record>"
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{_IPTC}" xmlns:sd="{_OURS}" '
        f'Iptc4xmpExt:DigitalSourceType="{_MARK}">{inner}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def record_in(packet: bytes) -> str | None:
    """Return our record's JSON from a packet, None where it has none.

    Raises `ValueError` for a packet that names our record and is no XML, or has a document type,
    with which a few bytes can stand for gigabytes.
    """
    if _OURS.encode() not in packet:
        return None
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        raise ValueError("its XMP has a document type")
    try:
        root = ElementTree.fromstring(packet.rstrip(b"\0"))
    except ElementTree.ParseError as error:
        raise ValueError(f"its XMP is no XML: {error}") from error
    name = f"{{{_OURS}}}record"
    for element in root.iter():
        # Tools that write a packet anew may turn a property into an attribute.
        record = element.text if element.tag == name else element.get(name)
        if record is not None:
            return record
    return None
