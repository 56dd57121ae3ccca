#!/bin/bash
# cluster.sh up [NODES] | down | kubectl ARGS... | e2e FOCUS [ARGS...]: the whole cluster, without any network for pods.
# PROCS: specs that e2e runs side by side.
. "$(dirname "$(readlink -f "$0")")/settings.sh"; verb=$1; shift

# A bridge in kl-cp joins the nodes. Nothing touches the machine's own namespace, and no route leads to pods.
wires() {
    ip netns add kl-cp || exit 1
    ip -n kl-cp link set lo up; ip -n kl-cp link add br0 type bridge; ip -n kl-cp addr add $CONTROL/24 dev br0; ip -n kl-cp addr add $OTHER/24 dev br0; ip -n kl-cp link set br0 up
    in_control sysctl -qw net.ipv4.ip_forward=1
    in_control sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null
    for i in $(seq "$1"); do
        ip netns add kl-n$i; ip -n kl-n$i link set lo up
        ip -n kl-n$i link add eth0 type veth peer name vn$i netns kl-cp; ip -n kl-cp link set vn$i master br0 up
        ip -n kl-n$i addr add "$(address "$i")/24" dev eth0; ip -n kl-n$i link set eth0 up
        case $(address "$i") in 172.30.1.*) ip -n kl-n$i route add default via $OTHER ;; *) ip -n kl-n$i route add default via $CONTROL ;; esac
        nsenter --net=/run/netns/kl-n$i sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
        nsenter --net=/run/netns/kl-n$i sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null
    done
}

up() {
    local nodes=${1:-3}; [ -e /run/netns/kl-cp ] && { echo "a cluster is there already: cluster.sh down"; exit 1; }
    echo "KPMODE=$KPMODE SUBNETS=$SUBNETS" >"$RUN/choices"
    wires "$nodes"; "$HERE/control.sh" start || exit 1
    for i in $(seq "$nodes"); do "$HERE/node.sh" start "$i"; done
    kube apply -f "$HERE/coredns.yaml" >/dev/null
    for i in $(seq "$nodes"); do wait_for 1200 grep -q 'node is up' "$RUN/n$i/init.log" || { tail "$RUN/n$i/init.log"; exit 1; }; done
}

down() {
    for i in 1 2 3; do "$HERE/node.sh" wipe "$i"; done
    "$HERE/control.sh" stop
    for n in kl-n1 kl-n2 kl-n3 kl-cp; do
        [ -e /run/netns/$n ] || continue
        # Whatever is left in the lab's own namespaces is the lab's.
        for pid in $(ip netns pids $n); do kill -9 "$pid" 2>/dev/null; done
        ip netns del $n
    done
    rm -f "$RUN/choices"
    # Mount points that the nodes needed, where nothing else is in them.
    rmdir /etc/kubernetes /etc/cni/net.d /etc/cni /opt/cni/bin /opt/cni /var/lib/kubelet /var/lib/calico /var/log/pods /var/log/containers 2>/dev/null
    true
}

case $verb in
up) up "$@" ;;
down) down ;;
kubectl) kube "$@" ;;
e2e)
    focus=$1; shift; mkdir -p "$K8S_LAB/e2e"; cd "$K8S_LAB/e2e" || exit 1
    about=(--kubeconfig="$CONFIGS/admin.kubeconfig" --provider=skeleton --kubectl-path="$BIN/kubectl" --num-nodes=3
        --report-dir= --dump-logs-on-failure=false --disable-log-dump=true)
    if [ "${PROCS:-1}" -gt 1 ]; then
        HOME=$K8S_LAB/home in_control ginkgo --procs="$PROCS" --no-color --focus="$focus" "${@/#--ginkgo./--}" "$BIN/e2e.test" -- "${about[@]}"
    else
        HOME=$K8S_LAB/home in_control e2e.test --ginkgo.no-color --ginkgo.focus="$focus" "${about[@]}" "$@"
    fi ;;
esac
