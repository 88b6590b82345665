// Package portmap asks the gateway of the local network to let UDP packets
// from outside in: a port mapping by PCP (RFC 6887), NAT-PMP (RFC 6886) or
// UPnP IGD (WANIPConnection:1, WANIPConnection:2, WANPPPConnection:1).
//
// All three protocols trust the local network. So nothing that a gateway says
// is believed for more than a hint where this node might be reached:
//
//   - Only the default gateway's own address is ever contacted, but for UPnP's
//     multicast question, to which only the gateway's answer counts. An answer
//     that points to another host is dropped, HTTP redirects are not followed.
//   - Datagrams are at most 1,100 bytes, HTTP bodies 256 KB, XML is read as a
//     stream of tokens into a few bounded fields.
//   - What is asked for is one mapping, of one UDP port, to this node.
//   - A node with a public address asks nobody.
//
// There is one goroutine. It sleeps while no mapping is wanted: a mapping is
// made when Want is called, looked at when Want is called five minutes later,
// renewed at half of its life while Want goes on being called, else removed
// then. Close removes it too, and takes at most a second. What a killed
// process leaves behind ends after an hour, except at the rare UPnP gateway
// that only makes permanent mappings.
//
//   - mapper.go   Mapper: when what is asked
//   - attempt.go  finding out what the gateway speaks
//   - pcp.go      PCP and NAT-PMP on the wire
//   - upnp.go     UPnP: finding the service, SOAP
//   - gateway*.go the default gateway
//
// Not for embedders: a node asks for its port by itself; see package overlay.
package portmap

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Kind is the protocol that a gateway speaks.
type Kind string

// The kinds. The zero value is KindNone.
const (
	KindNone   Kind = ""
	KindPCP    Kind = "pcp"
	KindNATPMP Kind = "nat-pmp"
	KindUPnP   Kind = "upnp"
)

// Status is what is known of the gateway.
type Status struct {
	// Gateway is its address, invalid where there is none.
	Gateway netip.Addr
	// Kind is the protocol that answered, KindNone before one did and where
	// none does.
	Kind Kind
	// External is the mapping: what a peer outside sends to. Invalid when
	// there is none.
	External netip.AddrPort
	// Useless is set when the gateway's own external address is not a public
	// one: it is behind another NAT, and the mapping helps only peers in the
	// network between. External is set all the same.
	Useless bool
	// Expires is when the mapping ends unless renewed.
	Expires time.Time
	// Trying: the gateway is being asked.
	Trying bool
	// Tried is when the gateway was last asked for a mapping, to the end;
	// zero: never.
	Tried time.Time
	// Err says in plain words why there is no mapping, "" when there is one
	// or nothing was tried.
	Err string
}

// Settled reports that nothing more is known to come.
func (s Status) Settled() bool { return !s.Trying && (s.External.IsValid() || !s.Tried.IsZero()) }

// Config is what a Mapper works with. The zero value is for production.
type Config struct {
	// Gateway finds the default gateway and this node's address towards it;
	// nil is DefaultGateway. An error means that there is none.
	Gateway func() (gateway, self netip.Addr, err error)
	// Listen opens an unconnected UDP socket at self with a random port; nil
	// is net.ListenUDP.
	Listen func(self netip.Addr) (net.PacketConn, error)
	// Dial connects to the gateway's UPnP port; nil is net.Dialer. It is
	// never called with another host than the gateway.
	Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	// Log gets what happens; nil discards it.
	Log *slog.Logger
	// Changed is called from the Mapper's goroutine when Status has changed.
	// It must return soon and must not call Close. May be nil.
	Changed func(Status)
}
