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
	maxSearch  = 6 // domains, the limit of resolv.conf(5)
	// localWait bounds the lookups of a short name of this network.
	localWait = 3 * time.Second
)

// localName returns the name under which this machine itself would reach a single label
// that is not a device, "" if it would not: the label itself if it is in the hosts
// file, or the label below a domain of the search list if that name exists. The bare
// label is never sent to a DNS server: only an impostor could answer it, and a mistyped
// device name would wait for the answer and leak.
func localName(ctx context.Context, label, suffix string) string {
	if runtime.GOOS != "linux" && runtime.GOOS != "freebsd" {
		return label // other systems have more sources of names and resolve it themselves
	}
	conf, _ := os.ReadFile(resolvConf) // without the file there is no search list
	host, _ := os.Hostname()
	return findLocal(ctx, label, suffix, searchList(string(conf), host), inHosts, func(ctx context.Context, name string) bool {
		_, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		return err == nil
	})
}

// findLocal is localName with the machine's data as arguments.
func findLocal(ctx context.Context, label, suffix string, search []string, hosts, exists func(ctx context.Context, name string) bool) string {
	ctx, cancel := context.WithTimeout(ctx, localWait)
	defer cancel()
	if hosts(ctx, label) {
		return label
	}
	for _, domain := range search {
		// The node has already answered that our own suffix has no such name.
		if name := label + "." + domain + "."; !strings.EqualFold(domain, suffix) && exists(ctx, name) {
			return name
		}
	}
	return ""
}

// inHosts reports whether the hosts file contains a name. It asks no DNS server.
func inHosts(ctx context.Context, name string) bool {
	r := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("only the hosts file")
	}}
	_, err := r.LookupNetIP(ctx, "ip", name)
	return err == nil
}

// searchList returns the search list of a resolv.conf, or the domain of the machine's
// host name if there is none.
func searchList(conf, host string) []string {
	_, domain, _ := strings.Cut(host, ".")
	list := strings.Fields(domain)
	for line := range strings.Lines(conf) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "search" && words[0] != "domain" {
			continue
		}
		list = nil // the last line wins
		for _, d := range words[1:min(len(words), maxSearch+1)] {
			if d = strings.Trim(d, "."); d != "" {
				list = append(list, d)
			}
		}
	}
	return list
}
