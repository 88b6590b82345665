// Package portmap asks the gateway of the local network for a UDP port mapping, by PCP
// (RFC 6887), NAT-PMP (RFC 6886) or UPnP IGD (WANIPConnection:1, WANIPConnection:2,
// WANPPPConnection:1).
//
// All three protocols trust the local network. So a gateway's reply is only a hint
// where this node might be reached:
//
//   - Only the default gateway's own address is contacted. UPnP's search is
//
// multicast, but only the gateway's reply counts. A reply
// that points to another host is dropped, HTTP redirects are not followed.
//   - Datagrams are at most 1,100 bytes, HTTP bodies 256 KB, XML is read as a
//     stream of tokens into a few bounded fields.
//   - It asks for one mapping, of one UDP port, to this node.
//   - A node with a public address asks no gateway.
//
// There is one goroutine. It sleeps while no mapping is wanted. A Want makes a mapping;
// a Want five minutes later confirms it. At half of its lifetime it is renewed if Want
// is still being called, and removed otherwise. Close removes it too, and takes at most
// a second. A killed process leaves a mapping that expires after an hour, except on the
// rare UPnP gateway that only makes permanent mappings.
//
//   - mapper.go   Mapper: when a mapping is made, renewed, removed
//   - attempt.go  finding the protocol of the gateway
//   - pcp.go      PCP and NAT-PMP on the wire
//   - upnp.go     UPnP: finding the service, SOAP
//   - gateway*.go the default gateway
//
// Not for embedders: a node maps its port by itself; see package overlay.
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

// Status is the state of the mapping.
type Status struct {
	// Gateway is the gateway's address, invalid if there is none.
	Gateway netip.Addr
	// Kind is the protocol that the gateway answered, KindNone until it has.
	Kind Kind
	// External is where peers outside reach the mapping. Invalid if there is none.
	External netip.AddrPort
	// Useless is set if the gateway's external address is not public: the gateway is
	// behind another NAT, and the mapping helps only peers in the network between.
	// External is still set.
	Useless bool
	// Expires is when the mapping ends unless it is renewed.
	Expires time.Time
	// Trying is set while the gateway is being asked.
	Trying bool
	// Tried is when the last attempt ended; zero: never.
	Tried time.Time
	// Err says for people why there is no mapping, "" if there is one or no attempt was
	// made.
	Err string
}

// Settled reports that no result is pending.
func (s Status) Settled() bool { return !s.Trying && (s.External.IsValid() || !s.Tried.IsZero()) }

// Config configures a Mapper. The zero value is for production.
type Config struct {
	// Gateway returns the default gateway and this node's address towards it; nil is
	// DefaultGateway. An error means that there is none.
	Gateway func() (gateway, self netip.Addr, err error)
	// Listen opens an unconnected UDP socket at self with a random port; nil
	// is net.ListenUDP.
	Listen func(self netip.Addr) (net.PacketConn, error)
	// Dial connects to the gateway's UPnP port; nil is net.Dialer. It is only called
	// with the gateway as the host.
	Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	// Log gets events; nil discards them.
	Log *slog.Logger
	// Changed is called from the Mapper's goroutine when Status has changed.
	// It must return soon and must not call Close. May be nil.
	Changed func(Status)
}
