package dataplane

import (
	"time"

	"weft/netstack/icmp"
	"weft/overlay/internal/mono"
)

// refusals makes the answers to an outgoing packet that cannot be delivered, as
// its destination would send them: an ICMP unreachable and, for TCP, a reset.
func refusals(pkt []byte, reason Reason) (answers [][]byte) {
	why := icmp.HostUnreachable
	if reason == Prohibited {
		why = icmp.Prohibited
	}
	for _, answer := range [][]byte{icmp.Error(pkt, why, 0), icmp.Reset(pkt)} {
		if answer != nil {
			answers = append(answers, answer)
		}
	}
	return answers
}

// tooLong answers a packet that only the relay connection carries, so that its sender
// makes shorter ones. It does so now and then, once the path has settled. limit is the
// longest packet that the path carries.
func (f *Forwarder) tooLong(e *Entry, pkt []byte, limit int) {
	now := mono.Now()
	last := e.tooLongAt.Load()
	if now-last < int64(tooLongPause) || time.Since(e.ep.PathSince()) < tooLongWait {
		return
	}
	if answer := packetTooBig(pkt, limit); answer != nil {
		e.tooLongAt.Store(now)
		f.net.Write([][]byte{answer}, 0)
	}
}

const (
	tooLongPause = 10 * time.Second
	tooLongWait  = 3 * time.Second
)

// packetTooBig makes the ICMP error of a router whose next link has this MTU. It returns
// nil for a packet that may be fragmented, and for one that needs no answer.
func packetTooBig(pkt []byte, mtu int) []byte {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4 && pkt[6]&dontFragment != 0 && pkt[9] != protoICMPv4:
	case len(pkt) > minMTU6 && pkt[0]>>4 == 6 && mtu >= minMTU6 && pkt[6] != protoICMPv6:
	default:
		return nil
	}
	return icmp.Error(pkt, icmp.TooBig, mtu)
}

const (
	protoICMPv4  = 1
	protoICMPv6  = 58
	dontFragment = 0x40
	minMTU6      = 1280 // what every link of IPv6 carries
)
