package portmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// pmpPort is the gateway's port for PCP and NAT-PMP.
const pmpPort = 5351

const (
	pcpVersion = 2
	pcpMap     = 1
	pcpAnswer  = 0x80
	protoUDP   = 17

	pcpMapLen  = 60
	pcpMaxLen  = 1100 // RFC 6887, section 7
	natpmpAddr = 0
	natpmpMap  = 1
)

// errVersion means that the gateway speaks the other one of the two protocols.
var errVersion = errors.New("the gateway does not speak this version")

// answer is a gateway's reply to a PCP or NAT-PMP request.
type answer struct {
	kind     Kind
	addr     bool // NAT-PMP: the reply has only the external address
	external netip.AddrPort
	life     time.Duration // 0: removed
	err      error         // the gateway refused
}

// appendPCPMap appends a MAP request; life 0 removes the mapping. want is the requested
// external address and port, zero for any.
func appendPCPMap(b []byte, self netip.Addr, nonce [12]byte, port uint16, want netip.AddrPort, life time.Duration) []byte {
	b = append(b, pcpVersion, pcpMap, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(life/time.Second))
	client := self.As16()
	b = append(b, client[:]...)
	b = append(b, nonce[:]...)
	b = append(b, protoUDP, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, want.Port())
	any4 := netip.AddrFrom4([4]byte{}).As16()
	if want.Addr().Is4() {
		any4 = want.Addr().As16()
	}
	return append(b, any4[:]...)
}

// parsePCPMap parses the reply to a MAP request for port with this nonce. An error
// means that it is not such a reply; a refusal is in answer.err.
func parsePCPMap(b []byte, nonce [12]byte, port uint16) (answer, error) {
	if len(b) >= 4 && b[0] == 0 && b[1]&pcpAnswer != 0 {
		return answer{}, errVersion // a NAT-PMP gateway, RFC 6887 section 9
	}
	if len(b) < 24 || len(b) > pcpMaxLen || len(b)%4 != 0 || b[0] != pcpVersion || b[1] != pcpMap|pcpAnswer {
		return answer{}, errors.New("not a PCP answer")
	}
	if b[3] == 1 { // UNSUPP_VERSION
		return answer{}, errVersion
	}
	// A refusal repeats the request, so nonce and port are checked, too.
	if len(b) < pcpMapLen || [12]byte(b[24:36]) != nonce || b[36] != protoUDP || binary.BigEndian.Uint16(b[40:]) != port {
		return answer{}, errors.New("a PCP answer to another request")
	}
	a := answer{kind: KindPCP}
	if b[3] != 0 {
		a.err = fmt.Errorf("the gateway refuses (PCP: %s)", pcpResult(b[3]))
		return a, nil
	}
	a.life = time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second
	a.external = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[44:60])).Unmap(), binary.BigEndian.Uint16(b[42:]))
	return a, nil
}

func pcpResult(code byte) string {
	switch code {
	case 2:
		return "not authorized"
	case 8:
		return "no resources"
	case 9:
		return "UDP is not supported"
	case 10:
		return "quota exceeded"
	case 11:
		return "the external port is taken"
	case 12:
		return "the request came from another address: there is a NAT in between"
	}
	return fmt.Sprintf("code %d", code)
}

// appendNATPMPAddr appends a request for the external address.
func appendNATPMPAddr(b []byte) []byte { return append(b, 0, natpmpAddr) }

// appendNATPMPMap appends a request for a UDP mapping; life 0 removes it.
func appendNATPMPMap(b []byte, port, want uint16, life time.Duration) []byte {
	b = append(b, 0, natpmpMap, 0, 0)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, want)
	return binary.BigEndian.AppendUint32(b, uint32(life/time.Second))
}

// parseNATPMP parses a reply to either request. In external, the reply to a mapping of
// port has only a port, the other one only an address.
func parseNATPMP(b []byte, port uint16) (answer, error) {
	if len(b) < 8 || len(b) > 16 || b[0] != 0 || b[1]&pcpAnswer == 0 {
		return answer{}, errors.New("not a NAT-PMP answer")
	}
	a := answer{kind: KindNATPMP}
	switch code := binary.BigEndian.Uint16(b[2:]); code {
	case 0:
	case 1:
		return answer{}, errVersion
	case 2:
		a.err = errors.New("the gateway refuses (NAT-PMP: not authorized; port mapping is disabled there)")
	case 3:
		a.err = errors.New("the gateway has no external address (NAT-PMP)")
	default:
		a.err = fmt.Errorf("the gateway refuses (NAT-PMP: code %d)", code)
	}
	switch {
	case a.err != nil:
	case b[1] == natpmpAddr|pcpAnswer && len(b) == 12:
		a.addr = true
		a.external = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[8:12])), 0)
	case b[1] == natpmpMap|pcpAnswer && len(b) == 16 && binary.BigEndian.Uint16(b[8:]) == port:
		a.life = time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second
		a.external = netip.AddrPortFrom(netip.Addr{}, binary.BigEndian.Uint16(b[10:]))
	default:
		return answer{}, errors.New("a NAT-PMP answer to another request")
	}
	return a, nil
}
