#!/bin/bash
# Builds what the lab runs, once, into $K8S_LAB: Kubernetes' own programs and its e2e.test from their published Go
# modules, CoreDNS, and the images of the specs. About a quarter of an hour on two cores and 1.5 GB; later calls build
# only what is missing.
. "$(dirname "$(readlink -f "$0")")/settings.sh"; set -e -o pipefail
packages="etcd-server containerd runc containernetworking-plugins busybox-static bind9-dnsutils iperf curl netcat-openbsd
    iproute2 iputils-ping ethtool socat conntrack openssl gcc libc6-dev bird2"
dpkg -s $packages >/dev/null 2>&1 || { apt-get update -q; apt-get install -y -q --no-install-recommends $packages; }

mkdir -p "$K8S_LAB/build"; cd "$K8S_LAB/build"
if [ ! -f go.mod ]; then
    echo "package lab" >lab.go
    { printf 'module lab\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes %s\n\n' $VERSION
      for m in api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap \
          code-generator component-base component-helpers controller-manager cri-api cri-client csi-translation-lib \
          dynamic-resource-allocation endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy \
          kube-scheduler kubectl kubelet metrics mount-utils pod-security-admission sample-apiserver sample-cli-plugin \
          sample-controller; do
          echo "replace k8s.io/$m => k8s.io/$m v0${VERSION#v1}"
      done; } >go.mod
fi
# Without a version the server calls itself v0.0.0, and specs that ask for it go wrong.
minor=${VERSION#v1.}; at=k8s.io/component-base/version
flags="-s -w -X $at.gitVersion=$VERSION -X $at.gitMajor=1 -X $at.gitMinor=${minor%.*}"
export GOFLAGS="-mod=mod -buildvcs=false"
program() { [ -x "$BIN/${1##*/}" ] || CGO_ENABLED=$2 nice -n 5 go build -ldflags "$flags" -o "$BIN/" "k8s.io/kubernetes/$1"; }
for p in apiserver controller-manager scheduler; do program cmd/kube-$p 0; done
program cmd/kubectl 0; program cmd/kubelet 1; program cmd/kube-proxy 1; program test/images/agnhost 0
[ -x "$BIN/e2e.test" ] || CGO_ENABLED=1 nice -n 5 go test -c -ldflags "$flags" -o "$BIN/e2e.test" k8s.io/kubernetes/test/e2e
[ -x "$BIN/ginkgo" ] || CGO_ENABLED=0 nice -n 5 go build -ldflags "-s -w" -o "$BIN/" github.com/onsi/ginkgo/v2/ginkgo
[ -x "$BIN/coredns" ] || GOFLAGS=-buildvcs=false CGO_ENABLED=0 GOBIN=$BIN nice -n 5 go install -ldflags "-s -w" github.com/coredns/coredns@v1.12.1

[ -f "$IMAGES/coredns.tar" ] || "$HERE/images.sh"

