#!/bin/bash
# node.sh start|stop|wipe|run|exec N [COMMAND...]: one node in network, mount, process, host name, IPC and cgroup
# namespaces of its own, with containerd, kubelet and kube-proxy. KPMODE: kube-proxy's mode, or none.
. "$(dirname "$(readlink -f "$0")")/settings.sh"
verb=$1 i=$2; shift 2; R=$RUN/n$i D=$NODES/n$i; mkdir -p "$R"
first() { pgrep -P "$(cat "$R/outer.pid")"; }

start() {
    [ -f "$R/outer.pid" ] && kill -0 "$(cat "$R/outer.pid")" 2>/dev/null && return
    # The Node first, so that no other pod CIDR is chosen for it.
    kube apply -f - >/dev/null <<END
{apiVersion: v1, kind: Node, metadata: {name: n$i, labels: {kubernetes.io/hostname: n$i}}, spec: {podCIDR: 10.244.$i.0/24, podCIDRs: [10.244.$i.0/24]}}
END
    setsid "$0" run "$i" >"$R/init.log" 2>&1 & echo $! >"$R/outer.pid"
}

# A cgroup of its own below this process's, in each hierarchy of version 1; then the namespaces.
run() {
    local all number controllers path mount folder; all=$(cat /proc/self/cgroup); : >"$R/cgroups"
    while IFS=: read -r number controllers path; do
        case $controllers in '') mount=unified ;; name=systemd) mount=systemd ;; *) mount=$controllers ;; esac
        folder=/sys/fs/cgroup/$mount${path%/}/k8slab-n$i; mkdir -p "$folder"
        if [ "$controllers" = cpuset ]; then
            for file in cpus mems; do cat "${folder%/*}/cpuset.$file" >"$folder/cpuset.$file"; done
            echo 1 >"$folder/cgroup.clone_children"
        fi
        # As one group a node would count no more than one busy process of the machine, with all its pods.
        case ,$controllers, in *,cpu,*) echo 4096 >"$folder/cpu.shares" ;; esac
        echo $$ >"$folder/cgroup.procs" && echo "$folder" >>"$R/cgroups"
    done <<<"$all"
    # `ip netns exec` would replace /sys and lose the cgroups.
    exec nsenter --net=/run/netns/kl-n$i unshare -m -p -u -i -C --propagation private --fork --kill-child --mount-proc "$0" inside "$i"
}

# The first process of the node.
inside() {
    hostname n$i; mkdir -p "$D"/{sys,kubelet,containerd,cni-lib,cni-conf,etc-k8s,opt-cni,calico,log/pods,log/containers}
    mount -t sysfs sysfs "$D/sys"; mount -t tmpfs -o mode=755 tmpfs "$D/sys/fs/cgroup"
    for c in cpu cpuacct cpuset memory devices freezer blkio pids; do mkdir "$D/sys/fs/cgroup/$c"; mount -t cgroup -o $c cgroup "$D/sys/fs/cgroup/$c"; done
    mkdir "$D/sys/fs/cgroup/systemd"; mount -t cgroup -o none,name=systemd cgroup "$D/sys/fs/cgroup/systemd"
    mount -t bpf bpf "$D/sys/fs/bpf"; mount --rbind "$D/sys" /sys
    mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p /run/lock /run/netns
    while read -r from to; do mkdir -p "$to"; mount --bind "$D/$from" "$to"; done <<END
kubelet /var/lib/kubelet
containerd /var/lib/containerd
cni-lib /var/lib/cni
cni-conf /etc/cni/net.d
calico /var/lib/calico
log/pods /var/log/pods
log/containers /var/log/containers
etc-k8s /etc/kubernetes
opt-cni /opt/cni/bin
END
    cp -n /usr/lib/cni/* /opt/cni/bin/
    echo "nameserver 10.96.0.10" >"$D/resolv.conf"; printf '127.0.0.1 localhost\n%s n%s\n' "$(address "$i")" "$i" >"$D/hosts"
    echo -n n$i | md5sum | cut -c1-32 >"$D/machine-id"
    for f in resolv.conf hosts machine-id; do [ -e /etc/$f ] || : >/etc/$f; mount --bind "$D/$f" "$(readlink -f /etc/$f)"; done
    # kubelet wants these settings of the whole machine; it finds files that have them instead.
    for pair in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        file=$D/sysctl.$(basename "${pair%=*}"); echo "${pair#*=}" >"$file"; mount --bind "$file" "/proc/sys/${pair%=*}"
    done
    mount --make-rshared /
    configure
    containerd -c "$D/containerd.toml" >"$R/containerd.log" 2>&1 &
    wait_for 300 ctr version
    for image in "$IMAGES"/*.tar; do ctr -n k8s.io images import "$image" >/dev/null; done
    kubelet --config="$D/kubelet.yaml" --kubeconfig="$CONFIGS/n$i.kubeconfig" --hostname-override=n$i --node-ip="$(address "$i")" --v=2 >"$R/kubelet.log" 2>&1 &
    [ "$KPMODE" = none ] || kube-proxy --config="$D/kube-proxy.yaml" --v=2 >"$R/kube-proxy.log" 2>&1 &
    echo "node is up"; trap 'exit 0' TERM INT; while :; do wait -n; sleep 0.2; done
}

configure() {
    # No CAP_SYS_RESOURCE in some sandboxes: runc could not lower oom_score_adj.
    cat >"$D/containerd.toml" <<END
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
address = "/run/containerd/containerd.sock"
[metrics]
address = "127.0.0.1:1338"
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.10.1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
END
    cat >"$D/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(address "$i")
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $KEYS/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $KEYS/n$i.crt
tlsPrivateKeyFile: $KEYS/n$i.key
cgroupDriver: cgroupfs
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failSwapOn: false
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: 100Mi}
evictionPressureTransitionPeriod: 0s
maxPods: 110
registerWithTaints: []
END
    cat >"$D/kube-proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $CONFIGS/proxy.kubeconfig}
mode: $KPMODE
clusterCIDR: $PODS
hostnameOverride: n$i
bindAddress: $(address "$i")
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END
}

# The end of the first process is the end of all in its process namespace.
stop() {
    local outer; outer=$(cat "$R/outer.pid" 2>/dev/null) || return 0
    kill -9 "$(first)" 2>/dev/null; wait_for 100 eval "! kill -0 $outer"; rm -f "$R/outer.pid"
    for _ in 1 2 3 4 5; do
        while read -r folder; do [ -d "$folder" ] && find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null; done <"$R/cgroups"
        sleep 0.2
    done
}

case $verb in
start) start ;;
run) run ;;
inside) inside ;;
stop) stop ;;
wipe) stop; rm -rf "$D" ;;
exec) exec nsenter -t "$(first)" -m -p -n -u -i -C -- "$@" ;;
esac
