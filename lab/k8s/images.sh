#!/bin/bash
# The images that specs ask for by name, made of this machine's programs: pause, agnhost, busybox, CoreDNS.
. "$(dirname "$(readlink -f "$0")")/settings.sh"; set -e
sources=$(go env GOMODCACHE)/k8s.io/kubernetes@$VERSION; mkdir -p "$IMAGES"; work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
pack() { (cd "$HERE/../.." && cargo xtask pack "$@"); }
e2e=registry.k8s.io/e2e-test-images

mkdir "$work/pause"; gcc -Os -static -s -DVERSION=3.10.1 -o "$work/pause/pause" "$sources/build/pause/linux/pause.c"
pack "$work/pause" "$IMAGES/pause.tar" --entrypoint /pause --user 65535:65535 --tag registry.k8s.io/pause:3.10.1 --tag registry.k8s.io/pause:3.10

root=$work/agnhost; mkdir -p "$root"/{bin,usr/bin,usr/local/bin,etc,tmp,uploads,root,var/log,proc,sys,dev,lib64,sbin,usr/sbin}
chmod 1777 "$root/tmp" "$root/uploads"
cp /bin/busybox "$root/bin/"; for name in $(busybox --list); do [ "$name" = busybox ] || ln -sf /bin/busybox "$root/bin/$name"; done
for program in /usr/bin/curl /bin/bash /bin/dash /bin/nc.openbsd /usr/bin/dig /usr/bin/iperf /usr/bin/getent /sbin/ip; do
    real=$(readlink -f "$program"); name=$(basename "$real"); name=${name%.openbsd}
    rm -f "$root/bin/$name"; cp "$real" "$root/bin/$name"
    ldd "$real" | grep -oE '/[^ ]+\.so[^ ]*' | sort -u | while read -r library; do mkdir -p "$root${library%/*}"; cp -Lu "$library" "$root$library"; done
done
# busybox's own shell would take its own nc before the one that the specs need.
rm -f "$root/bin/sh"; ln -s dash "$root/bin/sh"
printf 'root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\nnogroup:x:65534:\n' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
for library in libnss_dns.so.2 libnss_files.so.2; do
    found=$(ldconfig -p | awk -v name=$library '$1 == name { print $NF; exit }'); [ -z "$found" ] || { mkdir -p "$root${found%/*}"; cp -L "$found" "$root$found"; }
done
cp "$BIN/agnhost" "$root/agnhost"; ln -s agnhost "$root/agnhost-2"; cp "$sources"/test/images/agnhost/porter/localhost.* "$root/"
pack "$root" "$IMAGES/agnhost.tar" --entrypoint /agnhost --command pause --tag $e2e/agnhost:2.56 --tag $e2e/agnhost:2.47 --tag $e2e/agnhost:2.57 --tag $e2e/jessie-dnsutils:1.7

box=$work/busybox; mkdir -p "$box"/{bin,etc,tmp,root,proc,sys,dev}; cp /bin/busybox "$box/bin/"
for name in $(busybox --list); do [ "$name" = busybox ] || ln -sf busybox "$box/bin/$name"; done; cp "$root"/etc/{passwd,group} "$box/etc/"
pack "$box" "$IMAGES/busybox.tar" --command sh --tag $e2e/busybox:1.37.0-1 --tag $e2e/busybox:1.36.1-1 --tag docker.io/library/busybox:latest

mkdir -p "$work/coredns/etc"; cp "$BIN/coredns" "$work/coredns/"
pack "$work/coredns" "$IMAGES/coredns.tar" --entrypoint /coredns --tag lab/coredns:1.12.1
