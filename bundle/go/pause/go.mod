module ml-cluster.local/bundle/pause

go 1.26.0
