#!/usr/bin/env bash
# Records office.pcapng anew: real programs that talk to each other in network namespaces of their own.
# Nothing of this machine's own network is touched or heard; the namespaces and every program go when the script ends.
#
#   192.0.2.0/24, 2001:db8:0:1::/64   desk, laptop, phone --- office0 of the gate (recorded here)
#   198.51.100.0/24, 2001:db8:0:2::/64                         the gate --- server (web, DNS, SSH and telephony)
#
# usage (root): examples/record.sh [OUTPUT.pcapng]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
output=$(realpath -m "${1:-$here/office.pcapng}")
packages="iproute2 ethtool iputils-ping tshark nginx-light curl openssl dnsmasq-base bind9-dnsutils openssh-server
  openssh-client sip-tester python3"
[ "$(id -u)" = 0 ] || { echo "record.sh: must be root, to make network namespaces" >&2; exit 2; }
for program in ip ethtool ping dumpcap capinfos nginx curl openssl dnsmasq dig sshd ssh scp sipp python3; do
  command -v "$program" >/dev/null && continue
  echo "record.sh: no $program; on Debian: apt-get install" $packages >&2
  exit 2
done

work=$(mktemp -d)
hosts="desk laptop phone gate server"
space() { echo "office-$$-$1"; }

clean_up() {
  trap - EXIT INT TERM
  set +e # whatever is missing or gone already, the rest goes too
  exec 2>/dev/null # the shell would report every program that is killed here
  kill $(jobs -p)
  for host in $hosts; do
    ip netns pids "$(space "$host")" | xargs -r kill -KILL
    ip netns delete "$(space "$host")"
  done
  rm -rf "$work"
  [ -z "${made_run_sshd:-}" ] || rmdir /run/sshd
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# on HOST COMMAND...: in that host's namespace, with the office's name server and nothing of the caller's proxies.
on() {
  local host=$1
  shift
  env -u http_proxy -u https_proxy -u all_proxy -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY \
    ip netns exec "$(space "$host")" unshare --mount bash -c \
    'mount --bind "$0/resolv.conf" /etc/resolv.conf && exec "$@"' "$work" "$@"
}
wait_for() { # SECONDS COMMAND...
  local tries=$(($1 * 10))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $((tries -= 1)) -gt 0 ] || { echo "record.sh: waited in vain for: $*" >&2; tail -n 5 "$work"/*.log >&2; exit 1; }
    sleep 0.1
  done
}

# ---- the network -------------------------------------------------------------------------------------------------
attach() { # HOST INTERFACE LAST_BYTE_OF_MAC: names, MAC (from RFC 7042's range for documentation), no offloads, up
  local name
  name=$(space "$1")
  ip -n "$name" link set dev "$2" address "00:00:5e:00:53:$3"
  # Offloads would let one 64 KiB "packet" with no checksum stand for forty real ones.
  ip netns exec "$name" ethtool -K "$2" tx off rx off tso off gso off gro off >/dev/null
  ip -n "$name" link set dev "$2" up
}
office_host() { # HOST NUMBER: a host behind the gate's bridge
  ip -n "$(space gate)" link add "to-$1" type veth peer name eth0 netns "$(space "$1")"
  ip -n "$(space gate)" link set dev "to-$1" master office0
  attach "$1" eth0 "$2"
  attach gate "to-$1" "a$((${2#0} % 10))"
  address "$1" eth0 "192.0.2.$2/24" "2001:db8:0:1::$2/64"
  ip -n "$(space "$1")" route add default via 192.0.2.1
  ip -n "$(space "$1")" -6 route add default via 2001:db8:0:1::1
}
address() { # HOST INTERFACE ADDRESS...
  local name interface=$2
  name=$(space "$1")
  shift 2
  for one in "$@"; do
    case $one in
      *:*) ip -n "$name" address add "$one" dev "$interface" nodad ;;
      *) ip -n "$name" address add "$one" dev "$interface" ;;
    esac
  done
}
for host in $hosts; do
  ip netns add "$(space "$host")"
  ip -n "$(space "$host")" link set dev lo up
done
printf 'nameserver 198.51.100.10\nsearch office.example\noptions timeout:2\n' >"$work/resolv.conf"
on gate sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

ip -n "$(space gate)" link add office0 type bridge
attach gate office0 01
address gate office0 192.0.2.1/24 2001:db8:0:1::1/64
office_host desk 10
office_host laptop 11
office_host phone 12
ip -n "$(space gate)" link add uplink0 type veth peer name eth0 netns "$(space server)"
attach gate uplink0 02
attach server eth0 20
address gate uplink0 198.51.100.1/24 2001:db8:0:2::1/64
address server eth0 198.51.100.10/24 198.51.100.20/24 2001:db8:0:2::10/64 2001:db8:0:2::20/64
ip -n "$(space server)" route add default via 198.51.100.1
ip -n "$(space server)" -6 route add default via 2001:db8:0:2::1

# ---- the server's programs ---------------------------------------------------------------------------------------
chmod 755 "$work"
mkdir -p "$work/www" "$work/calls" "$work/received"
head -c 130000 /dev/urandom >"$work/www/handbook.pdf"
head -c 95000 /dev/urandom >"$work/www/plan.png"
head -c 60000 /dev/urandom >"$work/report.odt"
seq -f 'order %05.0f, delivered' 4000 >"$work/www/orders.txt"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=www.office.example' \
  -addext 'subjectAltName=DNS:www.office.example' -keyout "$work/tls.key" -out "$work/tls.pem" 2>/dev/null
cat >"$work/nginx.conf" <<CONF
user nobody nogroup;
worker_processes 1;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
events {}
http {
  access_log off;
  client_body_temp_path $work/nginx-a; proxy_temp_path $work/nginx-b; fastcgi_temp_path $work/nginx-c;
  uwsgi_temp_path $work/nginx-d; scgi_temp_path $work/nginx-e;
  types { text/plain txt; application/pdf pdf; image/png png; }
  server { listen 80; listen [::]:80; server_name www.office.example; return 301 https://\$host\$request_uri; }
  server {
    listen 443 ssl http2; listen [::]:443 ssl http2; server_name www.office.example; root $work/www;
    ssl_certificate $work/tls.pem; ssl_certificate_key $work/tls.key; ssl_protocols TLSv1.2 TLSv1.3;
  }
}
CONF
on server nginx -c "$work/nginx.conf" -e "$work/nginx.log" 2>"$work/nginx-start.log" &

on server dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=nobody --pid-file= \
  --log-facility="$work/dns.log" --listen-address=198.51.100.10,2001:db8:0:2::10 --bind-interfaces \
  --local=/office.example/ --local=/100.51.198.in-addr.arpa/ --local-ttl=300 \
  --host-record=www.office.example,198.51.100.10,2001:db8:0:2::10 \
  --host-record=ssh.office.example,198.51.100.10,2001:db8:0:2::10 \
  --host-record=sip.office.example,198.51.100.20,2001:db8:0:2::20 \
  --cname=handbook.office.example,www.office.example --mx-host=office.example,mail.office.example,10 \
  --txt-record=office.example,"v=spf1 -all" --srv-host=_sip._udp.office.example,sip.office.example,5060 \
  2>"$work/dns-start.log" &

ssh-keygen -q -t ed25519 -N '' -C host -f "$work/host_key"
ssh-keygen -q -t ed25519 -N '' -C user -f "$work/user_key"
cp "$work/user_key.pub" "$work/authorized_keys"
cat >"$work/sshd.conf" <<CONF
HostKey $work/host_key
AuthorizedKeysFile $work/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PrintMotd no
Subsystem sftp internal-sftp
CONF
cat >"$work/ssh.conf" <<CONF
IdentityFile $work/user_key
IdentitiesOnly yes
StrictHostKeyChecking no
UserKnownHostsFile $work/known_hosts
LogLevel ERROR
CONF
[ -d /run/sshd ] || { mkdir -m 755 /run/sshd && made_run_sshd=yes; }
on server "$(command -v sshd)" -D -e -f "$work/sshd.conf" 2>"$work/sshd.log" &

cp "$here/sip/"*.xml "$work/calls"
python3 "$here/voice.py" 9 115 1 "$work/calls/caller.al"
python3 "$here/voice.py" 9 190 2 "$work/calls/callee.al"
telephone() { # HOST SCENARIO IP PORT_OF_MEDIA [TARGET]: one side of one call
  on "$1" env --chdir="$work/calls" sipp -sf "$2.xml" -i "$3" -mi "$3" -p 5060 -mp "$4" -s 202 -m 1 -nostdin \
    -timeout 60 "${@:5}" >"$work/$2-$4.log" 2>&1 </dev/null
}
telephone server callee 198.51.100.20 16000 &
callee_ipv4=$!
telephone server callee 2001:db8:0:2::20 18000 &
callee_ipv6=$!
listening() { [ "$(on server ss -Hln "$1" "sport = :$2" | wc -l)" -ge "$3" ]; }
wait_for 10 listening -t 443 2
wait_for 10 listening -u 53 2
wait_for 10 listening -t 22 2
wait_for 10 listening -u 5060 2
sleep 2 # router solicitations and the bridge's first seconds are over

# ---- the recording -----------------------------------------------------------------------------------------------
on gate dumpcap -q -i office0 -B 16 -w "$work/raw.pcapng" 2>"$work/dumpcap.log" &
recorder=$!
wait_for 10 test -s "$work/raw.pcapng"
sleep 0.5

download() { # HOST CURL_FLAGS... URL
  local host=$1
  shift
  on "$host" curl -sS --fail --cacert "$work/tls.pem" -o /dev/null "$@" ||
    echo "record.sh: download failed: $host $*" >&2
}
typed_session() { # what a person types, a key at a time, then the shell's answers
  local text=$'uname -s\nls /usr/share/common-licenses\necho done\nexit\n' index
  for ((index = 0; index < ${#text}; index++)); do
    printf '%s' "${text:index:1}"
    sleep "0.0$((RANDOM % 6 + 3))"
    [ "${text:index:1}" != $'\n' ] || sleep 0.3
  done
}
at_the_desk() {
  ping_both desk
  download desk http://www.office.example/handbook.pdf
  download desk -4 https://www.office.example/handbook.pdf
  sleep 0.7
  download desk -6 https://www.office.example/plan.png https://www.office.example/orders.txt -o /dev/null
  for name in www ssh sip handbook; do
    on desk dig +short @198.51.100.10 "$name.office.example" A
    on desk dig +short @2001:db8:0:2::10 "$name.office.example" AAAA
    sleep 0.2
  done
  on desk dig @198.51.100.10 nosuchhost.office.example A
  on desk dig @2001:db8:0:2::10 nosuchhost.office.example AAAA
  on desk dig @198.51.100.10 office.example MX
  on desk dig @198.51.100.10 office.example TXT
  on desk dig @2001:db8:0:2::10 _sip._udp.office.example SRV
  on desk dig @198.51.100.10 -x 198.51.100.10
  on desk dig +tcp @198.51.100.10 www.office.example A
  download desk -4 --tls-max 1.2 https://www.office.example/plan.png
}
ping_both() {
  on "$1" ping -q -c 3 -i 0.3 198.51.100.10
  on "$1" ping -q -c 3 -i 0.3 2001:db8:0:2::10
}
at_the_laptop() {
  sleep 1
  typed_session |
    on laptop ssh -F "$work/ssh.conf" -tt root@ssh.office.example 'HISTFILE= exec bash --noprofile --norc -i'
  on laptop scp -q -4 -F "$work/ssh.conf" "$work/report.odt" "root@ssh.office.example:$work/received/"
  on laptop scp -q -6 -F "$work/ssh.conf" "root@ssh.office.example:$work/received/report.odt" "$work/copy.odt"
  cmp "$work/report.odt" "$work/copy.odt"
  download laptop -4 https://www.office.example/orders.txt
}
things_that_fail() { # closed ports, a hop too few, packets larger than the link
  sleep 2
  on laptop dig +tries=1 +time=1 -p 9 @198.51.100.10 www.office.example A || true
  on laptop dig +tries=1 +time=1 -p 9 @2001:db8:0:2::10 www.office.example AAAA || true
  on laptop curl -sS --max-time 2 https://www.office.example:8443/ || true
  on laptop ping -q -c 1 -W 1 -t 1 198.51.100.10 || true
  on laptop ping -q -c 1 -W 1 -t 1 2001:db8:0:2::10 || true
  on laptop ping -q -c 1 -W 1 192.0.2.77 || true
  on laptop ping -q -c 2 -i 0.3 -s 4000 198.51.100.10
  on laptop ping -q -c 2 -i 0.3 -s 4000 2001:db8:0:2::10
}
telephone phone caller 192.0.2.12 14000 198.51.100.20 &
call_ipv4=$!
at_the_desk >"$work/desk.log" 2>&1 &
desk=$!
at_the_laptop >"$work/laptop.log" 2>&1 &
laptop=$!
things_that_fail >"$work/fail.log" 2>&1 &
failing=$!
sleep 4
telephone desk caller 2001:db8:0:1::10 15000 '[2001:db8:0:2::20]' &
call_ipv6=$!
for job in "desk $desk" "laptop $laptop" "fail $failing" "caller-14000 $call_ipv4" "caller-15000 $call_ipv6" \
  "callee-16000 $callee_ipv4" "callee-18000 $callee_ipv6"; do
  wait "${job#* }" || { echo "record.sh: ${job% *} failed" >&2; cat "$work/${job% *}.log" >&2; exit 1; }
done
! grep -h '^record.sh:' "$work"/*.log >&2 || exit 1
sleep 1
ip netns pids "$(space gate)" | xargs -r kill -INT
wait "$recorder" || { cat "$work/dumpcap.log" >&2; exit 1; }
grep -q '/0 (pcap:0/dumpcap:0/' "$work/dumpcap.log" || { cat "$work/dumpcap.log" >&2; exit 1; } # nothing was missed

python3 "$here/plain_header.py" "$work/raw.pcapng" "$output"
capinfos -tEcsualI "$output"
