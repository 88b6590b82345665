package tun

import "weft/netstack/icmp"

// refuse answers a packet for a closed port as if nothing listened there: with a reset,
// or an ICMP port unreachable. The answers leave through Read; if there are too many,
// they are dropped.
func (n *Net) refuse(pkt []byte) {
	var answer []byte
	switch proto, l4, _, ok := icmp.Transport(pkt); {
	case ok && proto == protoTCP:
		answer = icmp.Reset(pkt)
	case ok && proto == protoUDP && len(l4) >= 8:
		answer = icmp.Error(pkt, icmp.PortUnreachable, 0)
	}
	if answer != nil {
		n.send(answer)
	}
}
