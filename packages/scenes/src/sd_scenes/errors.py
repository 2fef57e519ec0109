"""What can go wrong for a user of the scenes."""


class SceneError(ValueError):
    """A scene, a folder of scenes or the embedded model cannot be had as asked."""
