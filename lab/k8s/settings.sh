# Settings and helpers of the Kubernetes lab; sourced by its other scripts.
# Everything that is built or kept lies outside the tree, below $K8S_LAB.
set -u
HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
K8S_LAB=${K8S_LAB:-${XDG_CACHE_HOME:-$HOME/.cache}/k8s-lab}
BIN=$K8S_LAB/bin KEYS=$K8S_LAB/pki CONFIGS=$K8S_LAB/kc IMAGES=$K8S_LAB/images RUN=$K8S_LAB/run NODES=$K8S_LAB/nodes
VERSION=v1.34.4
CONTROL=172.30.0.1          # the control plane's address in its namespace; nodes are 172.30.0.11 and up
OTHER=172.30.1.1            # its address in the subnet of the third node, if there are two
SERVICES=10.96.0.0/16
PODS=10.244.0.0/16
ADMIN=lab-admin-token
export K8S_LAB PATH=$BIN:/usr/local/go/bin:/usr/lib/cni:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
# Processors are scarcer than memory: Kubernetes' programs collect their garbage less often.
export GOGC=400
# Nothing of the lab goes through a proxy of the machine.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY
# What `up` was told holds until `down`.
KPMODE=${KPMODE:-nftables} SUBNETS=${SUBNETS:-1}
[ ! -f "$RUN/choices" ] || . "$RUN/choices"
mkdir -p "$BIN" "$RUN" "$NODES" "$K8S_LAB/home"

in_control() { nsenter --net=/run/netns/kl-cp "$@"; }
kube() { KUBECONFIG=$CONFIGS/admin.kubeconfig HOME=$K8S_LAB/home in_control kubectl "$@"; }
# address N: of a node. SUBNETS=2: the third one is in a subnet of its own.
address() { if [ "$SUBNETS$1" = 23 ]; then echo 172.30.1.13; else echo "172.30.0.1$1"; fi; }
# wait_for TENTHS COMMAND...: until the command succeeds; fails after that many tenths of a second.
wait_for() { local left=$1; shift; until "$@" >/dev/null 2>&1; do left=$((left - 1)); [ "$left" -gt 0 ] || return 1; sleep 0.1; done; }
# stop_one PIDFILE: ends what the file names, politely first.
stop_one() {
    local pid; pid=$(cat "$1" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null; wait_for 100 eval "! kill -0 $pid" || kill -9 "$pid" 2>/dev/null
    rm -f "$1"
}
