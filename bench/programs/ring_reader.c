/* The least that a reader of a mapped packet ring does: count what arrives on an interface until SIGTERM or SIGINT.
 *
 *     ring_reader INTERFACE [latency]
 *
 * Prints one JSON object: packets, bytes, drops of the kernel; with `latency`, of packets of packet_sender, what lies
 * between sending and the kernel's receiving: median, 99 % and maximum, in microseconds. packet(7), TPACKET_V3.
 */
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { BLOCK_BYTES = 1 << 20, BLOCKS = 32, RETIRE_MS = 10, STAMP_AT = 42, LATENCIES_MAX = 1 << 22 };
static const uint64_t MARK = 0x73747265616d636fULL; /* before the stamp: this is a packet of packet_sender */

static volatile sig_atomic_t ended;

static void end(int number) { (void)number; ended = 1; }

static int by_size(const void *one, const void *other) {
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

static int fail(const char *what) { perror(what); return 1; }

int main(int count, char **words) {
    if (count < 2) { fprintf(stderr, "usage: ring_reader INTERFACE [latency]\n"); return 2; }
    int want_latency = count > 2;
    int packets_in = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    if (packets_in < 0) return fail("socket");
    int version = TPACKET_V3, yes = 1;
    struct tpacket_req3 ring = {
        .tp_block_size = BLOCK_BYTES, .tp_block_nr = BLOCKS, .tp_frame_size = 2048,
        .tp_frame_nr = BLOCK_BYTES / 2048 * BLOCKS, .tp_retire_blk_tov = RETIRE_MS,
    };
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = if_nametoindex(words[1]),
    };
    struct packet_mreq all = {.mr_ifindex = address.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
    if (setsockopt(packets_in, SOL_PACKET, PACKET_VERSION, &version, sizeof version) ||
        setsockopt(packets_in, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) ||
        setsockopt(packets_in, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring) ||
        setsockopt(packets_in, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all))
        return fail("setsockopt");
    uint8_t *map = mmap(NULL, (size_t)BLOCK_BYTES * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, packets_in, 0);
    int64_t *latencies = want_latency ? malloc(LATENCIES_MAX * sizeof *latencies) : NULL;
    if (map == MAP_FAILED || (want_latency && !latencies)) return fail("mmap");
    if (bind(packets_in, (struct sockaddr *)&address, sizeof address)) return fail("bind");
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);

    uint64_t packets = 0, bytes = 0, stamped = 0;
    for (unsigned place = 0;;) {
        struct tpacket_block_desc *block = (void *)(map + (size_t)place * BLOCK_BYTES);
        if (!(__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) {
            struct pollfd wait = {.fd = packets_in, .events = POLLIN};
            if (ended) break; /* everything that was handed over is read */
            poll(&wait, 1, 100);
            continue;
        }
        struct tpacket3_hdr *packet = (void *)((uint8_t *)block + block->hdr.bh1.offset_to_first_pkt);
        for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
            packets++;
            bytes += packet->tp_len;
            if (want_latency && packet->tp_snaplen >= STAMP_AT + 16 && stamped < LATENCIES_MAX) {
                uint64_t told[2];
                memcpy(told, (uint8_t *)packet + packet->tp_mac + STAMP_AT, sizeof told);
                if (told[0] == MARK)
                    latencies[stamped++] = packet->tp_sec * 1000000000LL + packet->tp_nsec - (int64_t)told[1];
            }
            packet = (void *)((uint8_t *)packet + packet->tp_next_offset);
        }
        __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        place = (place + 1) % BLOCKS;
    }
    struct tpacket_stats_v3 counted = {0};
    socklen_t size = sizeof counted;
    getsockopt(packets_in, SOL_PACKET, PACKET_STATISTICS, &counted, &size);
    printf("{\"packets\": %llu, \"bytes\": %llu, \"drops\": %u", (unsigned long long)packets, (unsigned long long)bytes,
           counted.tp_drops);
    if (stamped) {
        qsort(latencies, stamped, sizeof *latencies, by_size);
        printf(", \"median_us\": %.1f, \"most_us\": %.1f, \"max_us\": %.1f, \"stamped\": %llu", latencies[stamped / 2] / 1e3,
               latencies[stamped - 1 - stamped / 100] / 1e3, latencies[stamped - 1] / 1e3, (unsigned long long)stamped);
    }
    printf("}\n");
    return 0;
}
