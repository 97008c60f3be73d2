module ml-cluster.local/bundle/hello

go 1.26.0

require golang.org/x/sys v0.35.0
