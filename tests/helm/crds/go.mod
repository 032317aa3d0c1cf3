// Where the definitions in this folder come from; go.sum has their hashes. `python -m tests.helm.crds.vendor` reads them.
module crds

go 1.26.0

require (
	github.com/external-secrets/external-secrets v1.3.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.3
)
