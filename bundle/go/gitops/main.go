// Package main is the core of Argo CD, with kustomize: without its API server, pages and command-line tool.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	controller "github.com/argoproj/argo-cd/v3/cmd/argocd-application-controller/commands"
	plugin "github.com/argoproj/argo-cd/v3/cmd/argocd-cmp-server/commands"
	askpass "github.com/argoproj/argo-cd/v3/cmd/argocd-git-ask-pass/commands"
	repository "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
	"github.com/argoproj/argo-cd/v3/common"
	kustomize "sigs.k8s.io/kustomize/kustomize/v5/commands"
)

// By this variable Argo CD starts git's helper. As in its own program, it wins over the program's name.
const nameVariable = "ARGOCD_BINARY_NAME"

func main() {
	commands := map[string]func() *cobra.Command{
		common.CommandApplicationController: controller.NewCommand,
		common.CommandCMPServer:             plugin.NewCommand,
		common.CommandGitAskPass:            askpass.NewCommand,
		common.CommandRepoServer:            repository.NewCommand,
		"kustomize":                         kustomize.NewDefaultCommand,
	}
	name := os.Getenv(nameVariable)
	if name == "" {
		name = filepath.Base(os.Args[0])
	}
	command, known := commands[name]
	if !known {
		fmt.Fprintf(os.Stderr, "unknown program %q\n", name)
		os.Exit(2)
	}
	if command().Execute() != nil {
		os.Exit(1)
	}
}
