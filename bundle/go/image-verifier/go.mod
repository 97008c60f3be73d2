module ml-cluster.local/bundle/image-verifier

go 1.26.0
