# What TCP makes of a flow: its history and its state, with the names that Zeek's conn.log has for them
# (https://docs.zeek.org/en/master/scripts/base/protocols/conn/main.zeek.html), made from what that page says. All of it is inline.
from libc.stdint cimport uint8_t

cdef enum:
    TCP_FIN = 1
    TCP_SYN = 2
    TCP_RST = 4
    TCP_ACK = 16
    TCP_CONTROL = 7          # FIN, SYN or RST

cdef enum:
    # Record.marks. ACK_SEEN and DATA_SEEN are of the direction from the lower endpoint; shifted left once, of the other one.
    ACK_SEEN = 1             # a packet without payload that only acknowledges
    DATA_SEEN = 4            # a packet with payload; of UDP: any packet
    SEEN = 15                # all four of them
    FROM_HIGH = 16           # the source is the higher endpoint
    CLOSED = 32              # a FIN from both sides, or an RST
    SYNS_SEEN = 64           # a SYN without ACK, of the lower endpoint; shifted left once, of the higher one

cdef enum:
    HISTORY_KEPT = 15        # letters: six for each direction, and one for a flow that was turned around

cdef enum State:
    # FlowRow.state. STATES in _flows.pyx has their names.
    STATE_NONE = 0
    STATE_S0                 # a SYN, and no answer; of UDP: packets of one direction alone
    STATE_S1                 # established, not ended
    STATE_SF                 # established and ended; of UDP: packets of both directions
    STATE_REJ                # a SYN, and an RST for an answer
    STATE_S2                 # established; a FIN from the source, none from the target
    STATE_S3                 # established; a FIN from the target, none from the source
    STATE_RSTO               # established; an RST from the source
    STATE_RSTR               # established; an RST from the target
    STATE_RSTOS0             # a SYN and then an RST from the source; no SYN-ACK was seen
    STATE_RSTRH              # a SYN-ACK and then an RST from the target; no SYN was seen
    STATE_SH                 # a SYN and then a FIN from the source; no SYN-ACK was seen
    STATE_SHR                # a SYN-ACK and then a FIN from the target; no SYN was seen
    STATE_OTH                # none of these


cdef inline bint among(uint8_t letter, const uint8_t *history, int length) noexcept nogil:
    cdef int i
    for i in range(length):
        if history[i] == letter:
            return True
    return False


cdef inline uint8_t state_of(uint8_t protocol, const uint8_t *history, int length) noexcept nogil:
    """The state that a history amounts to; STATE_NONE without IP."""
    cdef bint syn = among(c'S', history, length), answer = among(c'h', history, length)
    cdef bint fin = among(c'F', history, length), fin_back = among(c'f', history, length)
    cdef bint reset = among(c'R', history, length), reset_back = among(c'r', history, length)
    if protocol == 17:
        return STATE_SF if among(c'D', history, length) and among(c'd', history, length) else STATE_S0
    if protocol != 6:
        return STATE_OTH if protocol else STATE_NONE
    if not syn and not answer:
        return STATE_OTH
    if reset_back:
        return (STATE_RSTR if answer else STATE_REJ) if syn else STATE_RSTRH
    if reset:
        return (STATE_RSTO if answer else STATE_RSTOS0) if syn else STATE_OTH
    if fin and fin_back:
        return STATE_SF
    if fin:
        return (STATE_S2 if answer else STATE_SH) if syn else STATE_OTH
    if fin_back:
        return (STATE_S3 if answer else STATE_OTH) if syn else STATE_SHR
    if not syn:
        return STATE_OTH
    return STATE_S1 if answer else STATE_S0 if length == 1 else STATE_OTH
