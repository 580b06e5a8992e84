"""The cache stays within its bytes, also under many threads."""

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.viewer.cache import ByteCache


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=60))
def test_bytes_are_bounded_and_counted(puts):
    cache: ByteCache[bytes] = ByteCache(100, len)
    for key, size in puts:
        assert cache.put(key, bytes(size)) == bytes(size)
        assert cache.get(key) == bytes(size)
        kept = [cache.get(key) for key in range(10)]
        assert cache.bytes == sum(len(value) for value in kept if value is not None) <= 100


def test_what_was_used_last_stays():
    cache: ByteCache[bytes] = ByteCache(30, len)
    for key in "abc":
        cache.put(key, bytes(10))
    cache.get("a")
    cache.put("d", bytes(10))
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]


def test_a_value_larger_than_the_cache_drives_nothing_out():
    cache: ByteCache[bytes] = ByteCache(30, len)
    cache.put("a", bytes(10))
    assert cache.put("big", bytes(31)) == bytes(31)
    assert cache.get("big") is None
    assert cache.get("a") is not None


def test_many_threads():
    cache: ByteCache[bytes] = ByteCache(500, len)

    def work(seed: int) -> None:
        for n in range(300):
            key = (seed * 7 + n) % 23
            cache.put(key, bytes(key + 1))
            assert cache.get(key) in {None, bytes(key + 1)}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert cache.bytes == sum(key + 1 for key in range(23) if cache.get(key) is not None)
