import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd_train import TrainError
from sd_train.buckets import best_bucket, bucket_sizes, default_buckets, place
from sd_train.caption_tags import TagOrder, shuffled
from sd_train.seeds import generator_for

BUCKETS = default_buckets(512)
SIDES = st.integers(1, 20_000)


def test_buckets_of_512_are_the_usual_ones() -> None:
    assert bucket_sizes(512, step=64, shortest=256, longest=1024) == BUCKETS
    assert {(512, 512), (576, 448), (640, 384), (768, 320), (1024, 256), (256, 1024)} <= {*BUCKETS}
    for width, height in BUCKETS:
        assert width % 64 == height % 64 == 0
        assert width * height <= 512 * 512
        assert 256 <= min(width, height) <= max(width, height) <= 1024
        assert (height, width) in BUCKETS


@pytest.mark.parametrize("size", [1, 8, 16, 64, 100, 128, 500, 512, 768, 1024, 2048])
def test_every_size_has_a_square_bucket_of_about_that_size(size: int) -> None:
    squares = [width for width, height in default_buckets(size) if width == height]
    assert squares
    assert abs(max(squares) - size) < 64


def test_buckets_that_cannot_be_are_refused() -> None:
    with pytest.raises(TrainError, match="use 1 <= step <= shortest <= size <= longest"):
        bucket_sizes(512, step=64, shortest=600, longest=1024)


@given(SIDES, SIDES, st.randoms())
def test_a_picture_on_its_side_gets_the_bucket_on_its_side(
    width: int, height: int, chance: object
) -> None:
    bucket = best_bucket(width, height, BUCKETS)
    mixed = list(BUCKETS)
    chance.shuffle(mixed)
    assert best_bucket(width, height, mixed) == bucket
    if width != height:
        turned = best_bucket(height, width, BUCKETS)
        assert turned == bucket[::-1] or (
            # Exactly between two buckets either is as good.
            max(width * bucket[1], height * bucket[0]) / min(width * bucket[1], height * bucket[0])
            == max(height * turned[1], width * turned[0])
            / min(height * turned[1], width * turned[0])
        )


@given(st.sampled_from(BUCKETS), st.integers(1, 8))
def test_a_picture_of_a_buckets_shape_gets_that_bucket(bucket: tuple[int, int], times: int) -> None:
    width, height = bucket[0] * times, bucket[1] * times
    assert best_bucket(width, height, BUCKETS) == bucket
    placed = place(width, height, bucket)
    assert (placed.resized, placed.left, placed.top) == (bucket, 0, 0)


@given(SIDES, SIDES, st.floats(0, 1), st.floats(0, 1))
def test_the_window_lies_on_the_picture_which_covers_it_just(
    width: int, height: int, across: float, down: float
) -> None:
    bucket = best_bucket(width, height, BUCKETS)
    placed = place(width, height, bucket, across=across, down=down)
    assert placed.original == (width, height)
    left, top, right, bottom = placed.box
    assert 0 <= left <= right <= placed.resized[0]
    assert 0 <= top <= bottom <= placed.resized[1]
    assert (right - left, bottom - top) == bucket
    assert placed.resized[0] == bucket[0] or placed.resized[1] == bucket[1]
    assert placed.mirrored().mirrored() == placed
    assert placed.mirrored().left + right == placed.resized[0]


def test_windows_reach_from_edge_to_edge_with_equal_chances() -> None:
    shares = [i / 1000 for i in range(1001)]
    corners = [place(520, 512, (512, 512), across=share).left for share in shares]
    assert (corners[0], corners[500], corners[-1]) == (0, 4, 8)
    assert all(110 <= corners.count(left) <= 113 for left in range(9))


def test_tags_behind_the_kept_ones_are_shuffled() -> None:
    caption = "sks dog, a photo, grass, red ball,  sun "
    order = TagOrder(shuffle=True, keep_tokens=1)
    shown = {shuffled(caption, order, generator_for(0, "tags", i)) for i in range(200)}
    assert len(shown) == 24
    assert all(text.startswith("sks dog, ") for text in shown)
    assert {tuple(sorted(text.split(", "))) for text in shown} == {
        ("a photo", "grass", "red ball", "sks dog", "sun")
    }
    again = [shuffled(caption, order, generator_for(0, "tags", 7)) for _ in range(2)]
    assert again[0] == again[1]


def test_a_caption_says_itself_what_stays() -> None:
    order = TagOrder(shuffle=True, keep_tokens=9, keep_separator="|||")
    shown = {
        shuffled("a, b ||| c, d, e ||| f, g", order, generator_for(0, "tags", i)) for i in range(60)
    }
    assert len(shown) == 6
    assert all(text.startswith("a, b, ") and text.endswith(", f, g") for text in shown)


def test_captions_that_are_not_shuffled_stay_as_they_are() -> None:
    for order in (TagOrder(), TagOrder(keep_tokens=2)):
        assert shuffled("b,  a ", order, generator_for(0, "tags", 0)) == "b,  a "
    empty = TagOrder(shuffle=True)
    assert shuffled("", empty, generator_for(0, "tags", 0)) == ""
