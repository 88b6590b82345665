package osdns

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
)

// Windows chooses resolvers by rules of the name resolution policy table, which are
// registry keys. Rules below the group policy's key make Windows ignore those below the
// local key, so our rules go where the others are.
const (
	nrptLocal  = `SYSTEM\CurrentControlSet\Services\Dnscache\Parameters\DnsPolicyConfig`
	nrptPolicy = `SOFTWARE\Policies\Microsoft\Windows NT\DNSClient\DnsPolicyConfig`

	tcpip4 = `SYSTEM\CurrentControlSet\Services\Tcpip\Parameters\Interfaces\`
	tcpip6 = `SYSTEM\CurrentControlSet\Services\Tcpip6\Parameters\Interfaces\`

	// nrptMost is the number of domains that one rule can have.
	nrptMost = 50
	// nrptComment starts the comment of our rules.
	nrptComment = "weft: "
)

// regValue is one value of a key below HKEY_LOCAL_MACHINE.
type regValue struct {
	Key  string
	Name string
	// Data is a string (REG_SZ), a list of them (REG_MULTI_SZ) or a number
	// (REG_DWORD).
	Data any
}

// nrptRules are the rules for a Config, with at most nrptMost domains each; base is
// nrptLocal or nrptPolicy. The keys for one interface are always the same.
func nrptRules(base, iface string, c Config) []regValue {
	domains := tidy(append(slices.Clone(c.Match), c.Search...))
	for i, d := range domains {
		domains[i] = "." + d // the domain and all names below it
	}
	if c.Default {
		domains = append(domains, ".")
	}
	var out []regValue
	n := 0
	for chunk := range slices.Chunk(domains, nrptMost) {
		key := base + `\` + nrptKey(iface, n)
		out = append(out,
			regValue{key, "Version", uint32(2)},
			regValue{key, "Comment", nrptComment + iface},
			regValue{key, "Name", slices.Clone(chunk)},
			regValue{key, "GenericDNSServers", c.Nameserver.String()},
			regValue{key, "ConfigOptions", uint32(8)}, // generic DNS servers
		)
		n++
	}
	return out
}

// nrptKey is the name of an interface's nth rule, a GUID.
func nrptKey(iface string, n int) string {
	h := fnv.New64a()
	h.Write([]byte(iface))
	sum := h.Sum64()
	return fmt.Sprintf("{57454654-%04X-4%03X-8%03X-%08X%04X}", sum>>48, sum>>36&0xfff, sum>>24&0xfff, sum&0xffffffff, n)
}

// nrptOwned returns the interface of a rule with this comment.
func nrptOwned(comment string) (iface string, ours bool) {
	iface, ours = strings.CutPrefix(comment, nrptComment)
	return iface, ours && validInterface(iface)
}

// nrptBase is the key for our rules. foreign are the names of other programs' rules
// below the group policy's key.
func nrptBase(foreign int) string {
	if foreign > 0 {
		return nrptPolicy
	}
	return nrptLocal
}

// ifaceValues are the settings of the interface with this GUID. The interface must not
// register itself in DNS.
func ifaceValues(guid string, c Config) []regValue {
	var out []regValue
	for _, key := range []string{tcpip4 + guid, tcpip6 + guid} {
		servers := ""
		if c.Default && c.Nameserver.Is4() == strings.HasPrefix(key, tcpip4) {
			servers = c.Nameserver.String()
		}
		out = append(out,
			regValue{key, "NameServer", servers},
			regValue{key, "SearchList", strings.Join(c.Search, ",")},
			regValue{key, "RegistrationEnabled", uint32(0)},
			regValue{key, "DisableDynamicUpdate", uint32(1)},
			regValue{key, "MaxNumberOfAddressesToRegister", uint32(0)},
		)
	}
	return out
}

// adapter is a network interface of Windows with its resolvers.
type adapter struct {
	Name    string // the friendly name
	GUID    string
	Servers []netip.Addr
}

// adapterServers are the resolvers of all interfaces except ours.
func adapterServers(list []adapter, iface string, ours netip.Addr) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range list {
		if a.Name == iface {
			continue
		}
		for _, s := range a.Servers {
			s = s.Unmap()
			// Windows lists fec0:0:0:ffff::1 to 3 where there are no servers.
			if !s.IsValid() || s.IsUnspecified() || s.IsMulticast() || s.WithZone("") == ours || siteLocal.Contains(s.WithZone("")) {
				continue
			}
			if ap := netip.AddrPortFrom(s, 53); !slices.Contains(out, ap) && len(out) < maxServers {
				out = append(out, ap)
			}
		}
	}
	return out
}

var siteLocal = netip.MustParsePrefix("fec0::/10")
