/* The least that a bump in the wire does: what arrives on one interface leaves on the other, both ways, until SIGTERM.
 *
 *     forwarder INTERFACE INTERFACE
 *
 * The same sockets as streamcore's: TPACKET_V3 rings of small blocks that close after a millisecond, sendmmsg past the
 * queueing discipline, a virtio header on both, so that checksums and segments that are left to hardware stay so.
 * A block leaves when it is handed over. Prints one JSON object: packets, refused, drops of the kernel. packet(7).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { BLOCK_BYTES = 1 << 17, BLOCKS = 256, RETIRE_MS = 1, MESSAGES = 256, HEAD = sizeof(struct virtio_net_hdr) };

struct end {
    int in, out;
    uint8_t *map;
    unsigned place;
};

static volatile sig_atomic_t ended;
static uint64_t packets, refused;

static void stop(int number) { (void)number; ended = 1; }

static void must(int wrong, const char *what) {
    if (!wrong) return;
    perror(what);
    exit(1);
}

static void open_end(struct end *end, const char *name) {
    int version = TPACKET_V3, yes = 1;
    struct tpacket_req3 ring = {
        .tp_block_size = BLOCK_BYTES, .tp_block_nr = BLOCKS, .tp_frame_size = 2048,
        .tp_frame_nr = BLOCK_BYTES / 2048 * BLOCKS, .tp_retire_blk_tov = RETIRE_MS,
    };
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(name)};
    struct packet_mreq all = {.mr_ifindex = address.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
    must((end->in = socket(AF_PACKET, SOCK_RAW, 0)) < 0 || (end->out = socket(AF_PACKET, SOCK_RAW, 0)) < 0, "socket");
    must(setsockopt(end->in, SOL_PACKET, PACKET_VERSION, &version, sizeof version) ||
         setsockopt(end->in, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) ||
         setsockopt(end->in, SOL_PACKET, PACKET_VNET_HDR, &yes, sizeof yes) ||
         setsockopt(end->in, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring) ||
         setsockopt(end->in, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) ||
         setsockopt(end->out, SOL_PACKET, PACKET_VNET_HDR, &yes, sizeof yes) ||
         setsockopt(end->out, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes), "setsockopt");
    end->map = mmap(NULL, (size_t)BLOCK_BYTES * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, end->in, 0);
    must(end->map == MAP_FAILED, "mmap");
    must(bind(end->out, (struct sockaddr *)&address, sizeof address), "bind");
    address.sll_protocol = htons(ETH_P_ALL);
    must(bind(end->in, (struct sockaddr *)&address, sizeof address), "bind");
}

static void send_all(int out, struct mmsghdr *messages, int count) {
    for (int at = 0; at < count;) {
        int sent = sendmmsg(out, messages + at, count - at, 0);
        if (sent > 0) { at += sent; continue; }
        if (errno == EINTR) continue;
        refused++;
        at++;
    }
}

/* Sends the block that is ready, if there is one. */
static int forward(struct end *from, int out) {
    static struct mmsghdr messages[MESSAGES];
    static struct iovec parts[MESSAGES];
    struct tpacket_block_desc *block = (void *)(from->map + (size_t)from->place * BLOCK_BYTES);
    if (!(__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) return 0;
    uint8_t *packet = (uint8_t *)block + block->hdr.bh1.offset_to_first_pkt;
    int count = 0;
    for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
        struct tpacket3_hdr *head = (void *)packet;
        uint8_t *data = packet + head->tp_mac - HEAD; /* the virtio header stands right before the packet */
        parts[count] = (struct iovec){data, head->tp_snaplen + HEAD};
        messages[count].msg_hdr = (struct msghdr){.msg_iov = &parts[count], .msg_iovlen = 1};
        if (++count == MESSAGES) { send_all(out, messages, count); count = 0; }
        packets++;
        packet += head->tp_next_offset;
    }
    send_all(out, messages, count);
    __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    from->place = (from->place + 1) % BLOCKS;
    return 1;
}

int main(int count, char **words) {
    struct end ends[2];
    if (count < 3) { fprintf(stderr, "usage: forwarder INTERFACE INTERFACE\n"); return 2; }
    for (int i = 0; i < 2; i++) open_end(&ends[i], words[1 + i]);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct pollfd wait[2] = {{.fd = ends[0].in, .events = POLLIN}, {.fd = ends[1].in, .events = POLLIN}};
    while (!ended) {
        int did = forward(&ends[0], ends[1].out) | forward(&ends[1], ends[0].out);
        if (!did) poll(wait, 2, 100);
    }
    uint64_t drops = 0;
    for (int i = 0; i < 2; i++) {
        struct tpacket_stats_v3 counted = {0};
        socklen_t size = sizeof counted;
        getsockopt(ends[i].in, SOL_PACKET, PACKET_STATISTICS, &counted, &size);
        drops += counted.tp_drops;
    }
    printf("{\"packets\": %llu, \"refused\": %llu, \"drops\": %llu}\n", (unsigned long long)packets,
           (unsigned long long)refused, (unsigned long long)drops);
    return 0;
}
