#!/bin/bash
# Certificates, keys and kubeconfigs of the lab; makes only what is missing.
set -e; . "$(dirname "$(readlink -f "$0")")/settings.sh"; mkdir -p "$KEYS" "$CONFIGS"; cd "$KEYS"
curve="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
authority() { [ -f "$1.crt" ] || openssl req -x509 $curve -days 3650 -keyout "$1.key" -out "$1.crt" -subj "/CN=$2" 2>/dev/null; }
# certificate NAME AUTHORITY SUBJECT USAGE [ALTERNATIVE NAMES]
certificate() {
    [ -f "$1.crt" ] && return
    openssl req $curve -keyout "$1.key" -out "$1.csr" -subj "$3" 2>/dev/null
    { echo basicConstraints=CA:FALSE; echo keyUsage=digitalSignature,keyEncipherment; echo "extendedKeyUsage=$4"; [ -z "${5:-}" ] || echo "subjectAltName=$5"; } >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}
authority ca lab-ca; authority fp-ca lab-front-proxy-ca
names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
certificate apiserver ca /CN=kube-apiserver serverAuth "$names,IP:127.0.0.1,IP:$CONTROL,IP:10.96.0.1"
certificate admin ca /O=system:masters/CN=admin clientAuth
certificate apiserver-kubelet ca /O=system:masters/CN=apiserver-kubelet clientAuth
certificate kcm ca /CN=system:kube-controller-manager clientAuth
certificate sched ca /CN=system:kube-scheduler clientAuth
certificate proxy ca /CN=system:kube-proxy clientAuth
certificate front-proxy fp-ca /CN=front-proxy-client clientAuth
for i in 1 2 3; do
    # One made before nodes could be in two subnets.
    grep -q "IP:172.30.1.1$i" n$i.ext 2>/dev/null || rm -f n$i.crt
    certificate n$i ca "/O=system:nodes/CN=system:node:n$i" clientAuth,serverAuth "DNS:n$i,IP:172.30.0.1$i,IP:172.30.1.1$i"
done
[ -f sa.key ] || { openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null; }
echo "$ADMIN,admin,admin-uid,system:masters" >tokens.csv
for who in admin kcm sched proxy n1 n2 n3; do
    cat >"$CONFIGS/$who.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://$CONTROL:6443", certificate-authority: $KEYS/ca.crt}}]
users: [{name: me, user: {client-certificate: $KEYS/$who.crt, client-key: $KEYS/$who.key}}]
contexts: [{name: lab, context: {cluster: lab, user: me}}]
current-context: lab
END
done
