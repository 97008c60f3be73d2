// Command hello says which version it is, and of what module it makes use.
package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

var version = "unset"

func main() { fmt.Println(version, unix.SIGTERM) }
