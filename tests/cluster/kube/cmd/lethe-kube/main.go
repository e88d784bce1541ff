// Command lethe-kube holds every program that a Kubernetes control plane and its nodes run, in one binary.
//
// The program is chosen by the name the binary is called by (a link named "kubectl" is kubectl) or, when that name
// is none of them, by the first argument: "lethe-kube kube-apiserver --secure-port=6443".
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"

	"github.com/coredns/coredns/coremain"
	"go.etcd.io/etcd/server/v3/etcdmain"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	// CoreDNS has exactly the plugins that are imported here.
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"

	// Log format and metrics that the components expect to be registered.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// programs maps a name to what runs under it; each returns only when the program has ended well.
var programs = map[string]func(){
	"coredns": coremain.Run,
	"etcd":    func() { etcdmain.Main(os.Args) },
	"kubectl": func() { execute(kubectl.NewDefaultKubectlCommand()) },
	"kubelet": func() { execute(kubelet.NewKubeletCommand(context.Background())) },

	"kube-apiserver":          func() { execute(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() { execute(controllers.NewControllerManagerCommand()) },
	"kube-proxy":              func() { execute(proxy.NewProxyCommand()) },
	"kube-scheduler":          func() { execute(scheduler.NewSchedulerCommand()) },
}

func execute(command *cobra.Command) { os.Exit(cli.Run(command)) }

func main() {
	name := filepath.Base(os.Args[0])
	if programs[name] == nil && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = os.Args[1:]
	}
	run := programs[name]
	if run == nil {
		known := strings.Join(slices.Sorted(maps.Keys(programs)), ", ")
		fmt.Fprintf(os.Stderr, "lethe-kube: no program is named %q; the first argument must be one of: %s\n", name, known)
		os.Exit(2)
	}
	run()
}
