# Check sequences of frames, seen from C.
from libc.stdint cimport int64_t

from streamcore.headers._walk cimport Walk
from streamcore.service._fields cimport Rewrite

# After everything else was rewritten. payload: where it begins.
cdef void adjust_frame_check(Rewrite *rewrite, const Walk *walk, int64_t payload) noexcept nogil
