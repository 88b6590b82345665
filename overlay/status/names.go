package status

import (
	"encoding/json"
	"net/netip"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"weft/overlay/cert"
	"weft/overlay/hostname"
	"weft/overlay/internal/directory"
)

// Peer is a node found by name or address. IPv4 and IPv6 are the zero Addr
// when it has none.
type Peer struct {
	ID     string     `json:"id"`
	Name   string     `json:"name"`
	FQDN   string     `json:"fqdn"`
	IPv4   netip.Addr `json:"ipv4"`
	IPv6   netip.Addr `json:"ipv6"`
	Online bool       `json:"online"`
	Self   bool       `json:"self"`
	// LookedUp means that the peer is not in the directory from the server: the data
	// may be old and should be looked up again.
	LookedUp bool `json:"looked_up"`
}

// PeerOf returns a node's Peer.
func PeerOf(n *cert.Node, online, self bool) Peer {
	return Peer{ID: n.ID.String(), Name: n.Name, FQDN: n.FQDN, IPv4: n.IPv4, IPv6: n.IPv6, Online: online, Self: self}
}

// Names is an immutable snapshot of the names known here.
type Names struct {
	// Ready is false until the node has a configuration: before that, it does not even
	// know which names belong to the overlay.
	Ready bool `json:"ready"`
	// Serial changes with each change of the snapshot.
	Serial uint64 `json:"serial"`
	// Suffix is "weft.internal": lower case, no dots at the ends.
	Suffix string `json:"suffix"`
	// IPv4 and IPv6 are the network's address ranges.
	IPv4 netip.Prefix `json:"ipv4_prefix"`
	IPv6 netip.Prefix `json:"ipv6_prefix"`
	// Peers holds this node itself and every peer known here.
	Peers []Peer `json:"peers"`
	// Complete means that Peers is the whole directory and the server was reachable
	// lately, so that a missing name does not exist. Otherwise Resolve looks it up.
	Complete bool `json:"complete"`
	// LookedUp changes when earlier results of Resolve are no longer valid: a name may
	// now exist, or belong to another device.
	LookedUp uint64 `json:"looked_up"`
	// Aliases are former names of Peers that still resolve.
	Aliases []Alias `json:"aliases"`
	// NoIPv4 means that a firewall of this machine drops what peers send over IPv4.
	NoIPv4 bool `json:"no_ipv4"`
}

// Alias is a former name of a peer.
type Alias struct {
	Name   string    `json:"name"`   // short
	Target string    `json:"target"` // the peer's current name
	Until  time.Time `json:"until"`
}

// NameFacts are the input of Names.
type NameFacts struct {
	Serial uint64
	NoIPv4 bool
	// Self is this node's certificate. It is nil while the node is in no network; the
	// fields below do not count then.
	Self       *cert.Node
	Suffix     string
	IPv4, IPv6 netip.Prefix
	Complete   bool
	LookedUp   uint64
	Known      []*directory.Entry // in any order; Self may be one
}

// NamesOf turns facts into names, sorted. It keeps no reference to the facts.
func NamesOf(f NameFacts) *Names {
	n := &Names{Serial: f.Serial, NoIPv4: f.NoIPv4}
	if f.Self == nil {
		return n
	}
	n.Ready, n.Suffix, n.IPv4, n.IPv6, n.Complete, n.LookedUp = true, f.Suffix, f.IPv4, f.IPv6, f.Complete, f.LookedUp
	n.Peers = append(n.Peers, PeerOf(f.Self, true, true))
	for _, k := range f.Known {
		if k.Node.ID == f.Self.ID {
			continue
		}
		p := PeerOf(k.Node, k.Online, false)
		p.LookedUp = !k.Listed
		n.Peers = append(n.Peers, p)
		if !k.Listed {
			continue // its former names are looked up each time
		}
		for _, a := range k.Aliases {
			n.Aliases = append(n.Aliases, Alias{Name: a.Name, Target: k.Node.Name, Until: a.Until})
		}
	}
	sort.Slice(n.Peers, func(i, j int) bool { return n.Peers[i].Name < n.Peers[j].Name })
	sort.Slice(n.Aliases, func(i, j int) bool { return n.Aliases[i].Name < n.Aliases[j].Name })
	return n
}

// Pong is the result of one Ping.
type Pong struct {
	Peer     Peer          `json:"peer"`
	Addr     netip.Addr    `json:"addr"` // the address that answered
	RTT      time.Duration `json:"rtt_ns"`
	Path     PathKind      `json:"path"`
	Reason   string        `json:"path_reason"`
	Relay    string        `json:"relay"`
	Endpoint string        `json:"endpoint"`

	Suite       string `json:"suite"` // as in PeerStatus
	KeyExchange string `json:"key_exchange"`
}

// Relay is one relay, or the coordination server if Server is set.
type Relay struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	URLs    []string `json:"urls"` // https://HOST:PORT
	STUN    []string `json:"stun"` // host:port, UDP
	Server  bool     `json:"server"`
	Current bool     `json:"current"` // this node's home relay
}

// CleanName converts a name or address as people write it to the form that all other
// code expects: letters beyond ASCII become A-labels ("Küche" is xn--kche-0ra), an IPv6
// address loses its brackets. It rejects text that can be neither before any other code
// uses it: empty, over 255 bytes, a leading '-', or bytes other than letters, digits,
// '-', '_', '.', ':' and '%'. The error has KindUsage.
func CleanName(name string) (string, error) {
	clean := strings.Trim(name, " ")
	ok := len(clean) <= 255 && utf8.ValidString(clean)
	if ok {
		ascii, err := hostname.ASCII(clean)
		ok, clean = err == nil, ascii
	}
	if inner, bracket := strings.CutPrefix(clean, "["); bracket {
		inner, bracket = strings.CutSuffix(inner, "]")
		ok = ok && bracket && strings.Contains(inner, ":")
		clean = inner
	}
	ok = ok && clean != "" && len(clean) <= 255 && clean[0] != '-'
	for i := 0; ok && i < len(clean); i++ {
		c := clean[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			c == '-' || c == '_' || c == '.' || c == ':' || c == '%'
	}
	if !ok {
		if len(name) > 64 {
			name = name[:64] + "..."
		}
		return "", &Error{Kind: KindUsage, Message: "not a device name: " + quote(strings.ToValidUTF8(name, "")), Hint: "names are letters, digits and '-', for example kitchen-pi"}
	}
	return clean, nil
}

// quote makes any string safe to print on one line.
func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
