package osdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// windowsSystem is the system of a Windows machine.
type windowsSystem struct{}

func newSystem(string, *slog.Logger) system { return windowsSystem{} }

func (windowsSystem) decide(context.Context) (Mode, string, error) {
	return ModeWindows, "Windows chooses resolvers by its name resolution policy table", nil
}

func (windowsSystem) backend(_ Mode, iface string) (backend, error) { return &nrpt{iface: iface}, nil }

// watch checks the network every half minute.
func (windowsSystem) watch(tell func(event)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				tell(eventBase)
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (windowsSystem) restore(ctx context.Context, iface string) ([]string, error) {
	n, err := deleteRules(func(owner string) bool { return iface == "" || owner == iface })
	if n == 0 || err != nil {
		return nil, err
	}
	flush(ctx)
	return []string{fmt.Sprintf("removed %d rules from the name resolution policy table", n)}, nil
}

// nrpt writes the rules.
type nrpt struct {
	iface  string // constant
	c      Config
	values []regValue
}

func (n *nrpt) set(ctx context.Context, c Config) ([]string, error) {
	base := nrptBase(foreignPolicies())
	values := nrptRules(base, n.iface, c)
	// Rules of an earlier, longer list, or below the other key.
	if _, err := deleteRules(func(owner string) bool { return owner == n.iface }); err != nil {
		return nil, err
	}
	for _, a := range adapters() {
		if a.Name == n.iface {
			values = append(values, ifaceValues(a.GUID, c)...)
		}
	}
	for _, v := range values {
		if err := v.write(); err != nil {
			return nil, err
		}
	}
	n.c, n.values = c, values
	if base == nrptPolicy {
		gp, cancel := context.WithTimeout(ctx, 5*time.Second) // it may wait for an unreachable domain
		runProgram(gp, "", "gpupdate", "/target:computer")
		cancel()
	}
	flush(ctx)
	applied := []string{fmt.Sprintf("nameserver %s for %d domains", c.Nameserver, len(tidy(append(c.Match, c.Search...))))}
	if len(c.Search) > 0 {
		applied = append(applied, searchText(c))
	}
	return applied, nil
}

func (n *nrpt) unset(ctx context.Context) error {
	_, err := deleteRules(func(owner string) bool { return owner == n.iface })
	flush(ctx)
	return err
}

func (n *nrpt) base(context.Context) ([]netip.AddrPort, error) {
	return adapterServers(adapters(), n.iface, n.c.Nameserver), nil
}

func (n *nrpt) intact(context.Context) (bool, error) {
	for _, v := range n.values {
		if !v.stands() {
			return false, nil
		}
	}
	return true, nil
}

func (n *nrpt) flush(ctx context.Context) { flush(ctx) }

func (n *nrpt) close() {}

func flush(ctx context.Context) { runProgram(ctx, "", "ipconfig", "/flushdns") }

func (v regValue) write() error {
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, v.Key, registry.SET_VALUE)
	if err != nil {
		return fmt.Errorf("open %s: %w", v.Key, err)
	}
	defer k.Close()
	switch d := v.Data.(type) {
	case string:
		err = k.SetStringValue(v.Name, d)
	case []string:
		err = k.SetStringsValue(v.Name, d)
	case uint32:
		err = k.SetDWordValue(v.Name, d)
	}
	if err != nil {
		return fmt.Errorf("write %s in %s: %w", v.Name, v.Key, err)
	}
	return nil
}

// stands reports whether the value's key still exists.
func (v regValue) stands() bool {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, v.Key, registry.QUERY_VALUE)
	if err != nil {
		return false
	}
	k.Close()
	return true
}

// rules calls f for each rule below base, with its interface if the rule is ours.
func rules(base string, f func(key, owner string, ours bool)) {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, base, registry.ENUMERATE_SUB_KEYS)
	if err != nil {
		return
	}
	defer k.Close()
	names, _ := k.ReadSubKeyNames(4096)
	for _, name := range names {
		comment := ""
		if r, err := registry.OpenKey(registry.LOCAL_MACHINE, base+`\`+name, registry.QUERY_VALUE); err == nil {
			comment, _, _ = r.GetStringValue("Comment")
			r.Close()
		}
		owner, ours := nrptOwned(comment)
		f(base+`\`+name, owner, ours)
	}
}

func foreignPolicies() (n int) {
	rules(nrptPolicy, func(_, _ string, ours bool) {
		if !ours {
			n++
		}
	})
	return n
}

func deleteRules(which func(owner string) bool) (n int, err error) {
	for _, base := range []string{nrptLocal, nrptPolicy} {
		rules(base, func(key, owner string, ours bool) {
			if !ours || !which(owner) {
				return
			}
			if derr := registry.DeleteKey(registry.LOCAL_MACHINE, key); derr != nil {
				err = errors.Join(err, derr)
				return
			}
			n++
		})
	}
	return n, err
}

// adapters are the interfaces that are up.
func adapters() []adapter {
	size := uint32(16 << 10)
	var buf []byte
	for try := 0; ; try++ {
		buf = make([]byte, size)
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, windows.GAA_FLAG_SKIP_ANYCAST|windows.GAA_FLAG_SKIP_MULTICAST, 0, (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0])), &size)
		if err == nil {
			break
		}
		if !errors.Is(err, windows.ERROR_BUFFER_OVERFLOW) || try == 5 {
			return nil
		}
	}
	var out []adapter
	for a := (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0])); a != nil; a = a.Next {
		if a.OperStatus != windows.IfOperStatusUp {
			continue
		}
		ad := adapter{Name: windows.UTF16PtrToString(a.FriendlyName), GUID: windows.BytePtrToString(a.AdapterName)}
		for s := a.FirstDnsServerAddress; s != nil; s = s.Next {
			if ip, ok := netip.AddrFromSlice(s.Address.IP()); ok {
				ad.Servers = append(ad.Servers, ip)
			}
		}
		out = append(out, ad)
	}
	return out
}
