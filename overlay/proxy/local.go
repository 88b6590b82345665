package proxy

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"time"
)

const (
	resolvConf = "/etc/resolv.conf"
	maxSearch  = 6 // domains, as resolv.conf(5) has it
	// localWait bounds the questions for a short name of this network.
	localWait = 3 * time.Second
)

// localName returns the name by which this machine itself would reach a single
// label that is no device's, "" when it would not: the label, if it is in the
// hosts file, else the label below a domain of the search list, if that exists.
// The label alone is never asked for: it could be answered by nobody but an
// impostor, and a mistyped device would wait for that and be told to the world.
func localName(ctx context.Context, label, suffix string) string {
	if runtime.GOOS != "linux" && runtime.GOOS != "freebsd" {
		return label // others look in more places, and know by themselves
	}
	conf, _ := os.ReadFile(resolvConf) // without one there is no search list
	host, _ := os.Hostname()
	return findLocal(ctx, label, suffix, searchList(string(conf), host), inHosts, func(ctx context.Context, name string) bool {
		_, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		return err == nil
	})
}

// findLocal is localName of what is said about the machine.
func findLocal(ctx context.Context, label, suffix string, search []string, hosts, exists func(ctx context.Context, name string) bool) string {
	ctx, cancel := context.WithTimeout(ctx, localWait)
	defer cancel()
	if hosts(ctx, label) {
		return label
	}
	for _, domain := range search {
		// Below our own suffix the node has said no already.
		if name := label + "." + domain + "."; !strings.EqualFold(domain, suffix) && exists(ctx, name) {
			return name
		}
	}
	return ""
}

// inHosts reports whether the hosts file has a name. No DNS server is asked.
func inHosts(ctx context.Context, name string) bool {
	r := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("only the hosts file")
	}}
	_, err := r.LookupNetIP(ctx, "ip", name)
	return err == nil
}

// searchList reads the search list of a resolv.conf; where it has none it is the
// domain of the machine's host name.
func searchList(conf, host string) []string {
	_, domain, _ := strings.Cut(host, ".")
	list := strings.Fields(domain)
	for line := range strings.Lines(conf) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "search" && words[0] != "domain" {
			continue
		}
		list = nil // the last line counts
		for _, d := range words[1:min(len(words), maxSearch+1)] {
			if d = strings.Trim(d, "."); d != "" {
				list = append(list, d)
			}
		}
	}
	return list
}
