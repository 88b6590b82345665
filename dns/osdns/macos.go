package osdns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// macOS has resolvers per domain: each file in /etc/resolver names a resolver and is
// called like its domain. One more file contains the search list. A service of the
// System Configuration gets all other names; ours exists only if Config.Default is set.
const (
	macDir     = "/etc/resolver"
	macSearch  = "search.weft"
	macService = "State:/Network/Service/weft/DNS"
)

// macFiles are the files for a Config, by name in macDir.
func macFiles(iface string, c Config) map[string][]byte {
	files := map[string][]byte{}
	head := fmt.Sprintf("%s%s. Taken away when the daemon ends, or by: weft dns restore\n", ownHeader, iface)
	for _, d := range tidy(append(slices.Clone(c.Match), c.Search...)) {
		files[d] = fmt.Appendf(nil, "%snameserver %s\n", head, c.Nameserver)
	}
	if len(c.Search) > 0 {
		files[macSearch] = fmt.Appendf(nil, "%ssearch %s\n", head, strings.Join(c.Search, " "))
	}
	return files
}

// macScript is the scutil script that sends all names to c.Nameserver, or none.
func macScript(c Config) string {
	if !c.Default {
		return "remove " + macService + "\nquit\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "d.init\nd.add ServerAddresses * %s\n", c.Nameserver)
	if len(c.Search) > 0 {
		fmt.Fprintf(&b, "d.add SearchDomains * %s\n", strings.Join(c.Search, " "))
	}
	// The empty domain is every domain's parent.
	b.WriteString("d.add SupplementalMatchDomains * \"\"\nd.add SupplementalMatchDomainsNoSearch # 1\n")
	fmt.Fprintf(&b, "set %s\nquit\n", macService)
	return b.String()
}

// macServers are the general resolvers that scutil --dns lists: those of its first
// resolver that has servers and no domain.
func macServers(out string, ours netip.Addr) []netip.AddrPort {
	var servers []netip.AddrPort
	special := false
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case strings.HasPrefix(key, "DNS configuration (for scoped"):
			return servers
		case strings.HasPrefix(key, "resolver #"):
			if len(servers) > 0 {
				return servers
			}
			special = false
		case strings.HasPrefix(key, "domain"), strings.HasPrefix(value, "mdns"):
			special = true
		case strings.HasPrefix(key, "nameserver[") && !special:
			if a, ok := parseServer(value); ok && a.Addr() != ours && len(servers) < maxServers {
				servers = append(servers, a)
			}
		}
	}
	return servers
}

// macos writes the files.
type macos struct {
	// Constant.
	root  string
	iface string
	run   runner

	c Config
}

func (m *macos) set(ctx context.Context, c Config) ([]string, error) {
	m.c = c
	dir := at(m.root, macDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	files := macFiles(m.iface, c)
	var foreign []string
	for name, content := range files {
		path := filepath.Join(dir, name)
		cur, err := readFile(path)
		if err != nil {
			return nil, err
		}
		if _, ours := ownedBy(cur); cur != nil && !ours {
			foreign = append(foreign, name) // another resolver for that domain
			continue
		}
		if !bytes.Equal(cur, content) {
			if err := writeNew(path, content, 0o644, ""); err != nil {
				return nil, err
			}
		}
	}
	if _, err := m.remove(func(owner, name string) bool { return owner == m.iface && files[name] == nil }); err != nil {
		return nil, err
	}
	if _, err := m.run(ctx, macScript(c), "scutil"); err != nil {
		return nil, err
	}
	m.flush(ctx)
	if len(foreign) > 0 {
		slices.Sort(foreign)
		return nil, fmt.Errorf("files of other programs in %s name other resolvers for %s; remove them if they are not needed", macDir, joined(foreign))
	}
	applied := []string{fmt.Sprintf("nameserver %s in %d files of %s", c.Nameserver, len(files), macDir)}
	if len(c.Search) > 0 {
		applied = append(applied, searchText(c))
	}
	if c.Default {
		applied = append(applied, "all names")
	}
	return applied, nil
}

// remove deletes our files for which which is true.
func (m *macos) remove(which func(owner, name string) bool) (n int, err error) {
	paths, _ := filepath.Glob(filepath.Join(at(m.root, macDir), "*"))
	for _, p := range paths {
		cur, err := readFile(p)
		if err != nil {
			continue
		}
		if owner, ours := ownedBy(cur); ours && which(owner, filepath.Base(p)) {
			if err := os.Remove(p); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

func (m *macos) unset(ctx context.Context) error {
	_, err := m.remove(func(owner, _ string) bool { return owner == m.iface })
	_, serr := m.run(ctx, macScript(Config{}), "scutil")
	m.flush(ctx)
	return errors.Join(err, serr)
}

// flush clears the caches; if that fails, old answers last some seconds longer.
func (m *macos) flush(ctx context.Context) {
	m.run(ctx, "", "dscacheutil", "-flushcache")
	m.run(ctx, "", "killall", "-HUP", "mDNSResponder")
}

func (m *macos) base(ctx context.Context) ([]netip.AddrPort, error) {
	out, err := m.run(ctx, "", "scutil", "--dns")
	if err != nil {
		return nil, err
	}
	return macServers(out, m.c.Nameserver), nil
}

func (m *macos) intact(context.Context) (bool, error) {
	for name, content := range macFiles(m.iface, m.c) {
		if cur, err := readFile(filepath.Join(at(m.root, macDir), name)); err != nil || !bytes.Equal(cur, content) {
			return false, nil
		}
	}
	return true, nil
}

func (m *macos) close() {}
