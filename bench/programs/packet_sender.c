/* Sends UDP packets of 64 flows on an interface, as fast as it goes or at a rate; each says when it was sent.
 *
 *     packet_sender INTERFACE PACKETS LENGTH [PACKETS_PER_SECOND]
 *
 * LENGTH is of the Ethernet frame without its checksum. Prints one JSON object: sent, seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FLOWS = 64, FRAME_MAX = 9014, STAMP_AT = 42 };
static const uint64_t MARK = 0x73747265616d636fULL;

static int64_t now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void put16(uint8_t *at, unsigned value) { at[0] = value >> 8; at[1] = value & 255; }

static void make(uint8_t *frame, unsigned length, unsigned flow) {
    static const uint8_t head[] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0,
                                   10, 8, 0, 1, 10, 8, 0, 2};
    unsigned sum = 0;
    memset(frame, 0, length);
    memcpy(frame, head, sizeof head);
    put16(frame + 16, length - 14);
    for (unsigned i = 14; i < 34; i += 2) sum += frame[i] << 8 | frame[i + 1];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    put16(frame + 24, ~sum & 0xffff);
    put16(frame + 34, 2000 + flow);
    put16(frame + 36, 3000);
    put16(frame + 38, length - 34);
    if (length >= STAMP_AT + 16) memcpy(frame + STAMP_AT, &MARK, sizeof MARK);
}

int main(int count, char **words) {
    if (count < 4) { fprintf(stderr, "usage: packet_sender INTERFACE PACKETS LENGTH [PER_SECOND]\n"); return 2; }
    long packets = atol(words[2]), sent = 0;
    unsigned length = atoi(words[3]);
    double rate = count > 4 ? atof(words[4]) : 0;
    static uint8_t frames[FLOWS][FRAME_MAX];
    static struct mmsghdr messages[FLOWS];
    static struct iovec parts[FLOWS];
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(words[1]), .sll_halen = 6};
    int out = socket(AF_PACKET, SOCK_RAW, 0);
    if (out < 0 || length < 60 || length > FRAME_MAX || bind(out, (struct sockaddr *)&address, sizeof address)) {
        perror("packet_sender");
        return 1;
    }
    for (unsigned flow = 0; flow < FLOWS; flow++) {
        make(frames[flow], length, flow);
        parts[flow] = (struct iovec){frames[flow], length};
        messages[flow].msg_hdr = (struct msghdr){.msg_iov = &parts[flow], .msg_iovlen = 1};
    }
    int64_t begin_ns = now_ns(CLOCK_MONOTONIC);
    while (sent < packets) {
        long some = rate ? 1 : packets - sent < FLOWS ? packets - sent : FLOWS;
        if (rate) {
            int64_t due_ns = begin_ns + (int64_t)(sent / rate * 1e9);
            struct timespec due = {due_ns / 1000000000, due_ns % 1000000000};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        }
        if (length >= STAMP_AT + 16) {
            int64_t stamp = now_ns(CLOCK_REALTIME);
            for (long i = 0; i < some; i++) memcpy(frames[rate ? sent % FLOWS : i] + STAMP_AT + 8, &stamp, sizeof stamp);
        }
        int done = sendmmsg(out, messages + (rate ? sent % FLOWS : 0), some, 0);
        if (done < 0 && (errno == ENOBUFS || errno == EAGAIN || errno == EINTR)) continue;
        if (done < 0) { perror("sendmmsg"); return 1; }
        sent += done;
    }
    printf("{\"sent\": %ld, \"seconds\": %.6f}\n", sent, (now_ns(CLOCK_MONOTONIC) - begin_ns) / 1e9);
    return 0;
}
