// Memory for vectors, which the parts of the engine for all instruction sets share.
#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "network.h"

extern "C" void* ase_aligned_alloc(size_t alignment, size_t bytes) {
#if defined(_WIN32)
    return _aligned_malloc(bytes, alignment);
#else
    void* p = std::aligned_alloc(alignment, bytes);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (p && alignment > 4096) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
#endif
}

extern "C" void ase_aligned_free(void* p) {
#if defined(_WIN32)
    _aligned_free(p);
#else
    std::free(p);
#endif
}
