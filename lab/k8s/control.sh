#!/bin/bash
# control.sh start|stop|restart|away|back|pause|routes: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and, for a way to the pods, BIRD,
# in the namespace kl-cp. restart, away, back: the API server alone; pause: etcd stands still for five seconds;
# routes: without BGP, the way to the pods' blocks that are there now.
. "$(dirname "$(readlink -f "$0")")/settings.sh"; D=$RUN/cp
# Nothing forks between the shell and the program, so that the id is the program's own.
run() { local name=$1; shift; (exec nsenter --net=/run/netns/kl-cp setsid "$@") >"$D/$name.log" 2>&1 & echo $! >"$D/$name.pid"; }
ready() { [ "$(in_control curl -s --cacert "$KEYS/ca.crt" -H "Authorization: Bearer $ADMIN" https://127.0.0.1:6443/readyz)" = ok ]; }

apiserver() {
    run apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --advertise-address=$CONTROL \
        --secure-port=6443 --tls-cert-file="$KEYS/apiserver.crt" --tls-private-key-file="$KEYS/apiserver.key" \
        --client-ca-file="$KEYS/ca.crt" --token-auth-file="$KEYS/tokens.csv" \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file="$KEYS/sa.pub" \
        --service-account-signing-key-file="$KEYS/sa.key" --authorization-mode=Node,RBAC \
        --enable-admission-plugins=NodeRestriction --service-cluster-ip-range=$SERVICES --allow-privileged=true \
        --kubelet-client-certificate="$KEYS/apiserver-kubelet.crt" --kubelet-client-key="$KEYS/apiserver-kubelet.key" \
        --kubelet-certificate-authority="$KEYS/ca.crt" --kubelet-preferred-address-types=InternalIP \
        --requestheader-client-ca-file="$KEYS/fp-ca.crt" --requestheader-allowed-names=front-proxy-client \
        --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
        --requestheader-username-headers=X-Remote-User --proxy-client-cert-file="$KEYS/front-proxy.crt" \
        --proxy-client-key-file="$KEYS/front-proxy.key" --enable-aggregator-routing=true --v=1
    wait_for 1200 ready || { tail -5 "$D/apiserver.log"; exit 1; }
}

start() {
    rm -rf "$D"; mkdir -p "$D"; "$HERE/keys.sh" || exit 1
    run etcd etcd --name lab --data-dir "$D/etcd" --listen-client-urls http://127.0.0.1:2379,http://$CONTROL:2379 \
        --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync
    apiserver
    local as; as() { echo "--kubeconfig=$CONFIGS/$1.kubeconfig --authentication-kubeconfig=$CONFIGS/$1.kubeconfig --authorization-kubeconfig=$CONFIGS/$1.kubeconfig"; }
    run kcm kube-controller-manager $(as kcm) --bind-address=127.0.0.1 --service-account-private-key-file="$KEYS/sa.key" \
        --root-ca-file="$KEYS/ca.crt" --use-service-account-credentials=true --allocate-node-cidrs=false --cluster-cidr=$PODS \
        --service-cluster-ip-range=$SERVICES --cluster-signing-cert-file="$KEYS/ca.crt" \
        --cluster-signing-key-file="$KEYS/ca.key" --leader-elect=false --v=1
    run sched kube-scheduler $(as sched) --bind-address=127.0.0.1 --leader-elect=false --v=1
    command -v bird >/dev/null && route
    wait_for 600 kube get serviceaccount default || { echo "no default service account"; exit 1; }
}

# The API server is no node of the network, but some specs reach pods through it: it learns their routes by BGP.
route() {
    { echo "log stderr all; router id $CONTROL; protocol device {} protocol direct { ipv4; } protocol kernel { ipv4 { export all; }; }"
      for i in 1 2 3; do
          echo "protocol bgp n$i { local $CONTROL as 64512; neighbor $(address "$i") as 64512; passive on; ipv4 { import all; export none; }; }"
      done; } >"$D/bird.conf"
    run bird bird -f -c "$D/bird.conf" -s "$D/bird.ctl"
}

# Some specs read from pods through the API server.
routes() {
    local node block
    kube get blockaffinities.crd.projectcalico.org -o 'jsonpath={range .items[*]}{.spec.node} {.spec.cidr}{"\n"}{end}' |
        while read -r node block; do ip -n kl-cp route replace "$block" via "$(address "${node#n}")" || exit 1; done
}

case $1 in
routes) routes ;;
start) start ;;
restart) stop_one "$D/apiserver.pid"; sleep 3; apiserver ;;
away) stop_one "$D/apiserver.pid" ;;
back) apiserver ;;
pause) kill -STOP "$(cat "$D/etcd.pid")"; sleep 5; kill -CONT "$(cat "$D/etcd.pid")" ;;
stop) for name in sched kcm bird apiserver etcd; do stop_one "$D/$name.pid"; done ;;
esac
