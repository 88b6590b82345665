package netstack

// The link endpoint: where packets cross between gVisor and the tun.Device.
//
// Outgoing: gVisor calls WritePackets -> txQueue -> read copies the packet into
// wireguard-go's buffer and completes its checksum, or splits it (split.go). Incoming:
// write merges runs of small TCP segments (merge.go), records ICMP errors and echo
// replies (icmp.go) and calls gVisor's dispatcher.

import (
	"encoding/binary"
	"os"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// link implements stack.LinkEndpoint and stack.GSOEndpoint.
type link struct {
	// Constant after newLink.
	mtu    uint32
	gsoMax uint32 // as gVisor counts it; 0: no segmentation offload

	tx   *txQueue
	icmp icmpMonitor

	limit atomic.Pointer[func([]byte) int] // see Net.SetLimit; nil: none
	rest  leftovers

	dispatcher atomic.Pointer[stack.NetworkDispatcher] // nil: detached
	closed     atomic.Bool
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

func newLink(mtu, maxSegment int) *link {
	l := &link{mtu: uint32(mtu), tx: newTxQueue()}
	if maxSegment > mtu {
		// gVisor's sender subtracts this again (sendData in snd.go).
		l.gsoMax = uint32(maxSegment) + header.TCPTotalHeaderMaximumSize + 1
	}
	return l
}

func (l *link) close() {
	l.closed.Store(true)
	l.tx.close()
	l.rest.drop()
}

// WritePackets queues packets of the stack for read. It runs under the lock of a TCP
// endpoint and never blocks. It reports a packet that the queue refuses as
// ErrNoBufferSpace; TCP sends that packet again.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	for _, pkt := range pkts.AsSlice() {
		// A reference is enough: the stack makes a packet buffer for each
		// transmission and does not touch it after this call.
		if !l.tx.push(pkt.IncRef(), pkt.Hash, pkt.Size()) {
			pkt.DecRef()
			if n == 0 {
				return 0, &tcpip.ErrNoBufferSpace{}
			}
			break
		}
		n++
	}
	return n, nil
}

// read implements Net.Read.
func (l *link) read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if n := l.rest.take(bufs, sizes, offset); n > 0 {
		return n, nil
	}
	var batch [batchSize]*stack.PacketBuffer
	for {
		got, ok := l.tx.pop(batch[:min(len(bufs), len(batch))])
		if !ok {
			return 0, os.ErrClosed
		}
		if got == 0 { // interrupted
			return 0, nil
		}
		n := 0
		for _, pkt := range batch[:got] {
			n += l.copyOut(pkt, bufs[n:], sizes[n:], offset)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// copyOut copies a packet into the first buffers and returns how many buffers it used.
// It takes over the reference to pkt. What does not fit is kept for the next read.
func (l *link) copyOut(pkt *stack.PacketBuffer, bufs [][]byte, sizes []int, offset int) int {
	size := pkt.Size()
	limit := l.limit.Load()
	if l.rest.waiting.Load() > 0 || len(bufs) == 0 {
		// Queue behind the packets that already wait, to keep the order.
		l.rest.add(pkt, limit)
		return 0
	}
	if limit != nil {
		s := splits.Get().(*split)
		if s.begin(pkt, size, *limit) {
			n := 0
			for n < len(bufs) {
				k, done := s.next(bufs[n][offset:])
				sizes[n] = k
				n++
				if done {
					s.release()
					return n
				}
			}
			l.rest.addSplit(s)
			return n
		}
		splits.Put(s)
	}
	defer pkt.DecRef()
	if size == 0 || offset+size > len(bufs[0]) {
		return 0
	}
	serialize(bufs[0][offset:offset+size], pkt)
	sizes[0] = size
	return 1
}

// serialize copies pkt into dst, which has exactly its size, and completes the
// TCP checksum that segmentation offload left to the link.
func serialize(dst []byte, pkt *stack.PacketBuffer) {
	views, skip := pkt.AsViewList()
	done := 0
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		done += copy(dst[done:], b[skip:])
		skip = 0
	}
	if pkt.GSOOptions.Type == stack.GSONone || !pkt.GSOOptions.NeedsCsum {
		return
	}
	l4 := int(pkt.GSOOptions.L3HdrLen)
	if at := l4 + int(pkt.GSOOptions.CsumOffset); at+2 <= len(dst) {
		// The field already holds the sum of the pseudo header, so summing over it
		// includes that.
		binary.BigEndian.PutUint16(dst[at:], ^checksum.Checksum(dst[l4:], 0))
	}
}

// write implements Net.Write.
func (l *link) write(bufs [][]byte, offset int) (int, error) {
	if l.closed.Load() {
		return 0, os.ErrClosed
	}
	d := l.dispatcher.Load()
	if d == nil {
		return len(bufs), nil
	}
	for i := 0; i < len(bufs); {
		if offset > len(bufs[i]) {
			i++
			continue
		}
		run, hdr, size := mergeRun(bufs[i:], offset)
		if run > 1 {
			head, payload := buffer.NewViewSize(hdr), buffer.NewViewSize(size)
			merge(head.AsSlice(), payload.AsSlice(), bufs[i:i+run], offset)
			deliver(*d, head, payload)
		} else {
			l.writeOne(*d, bufs[i][offset:])
		}
		i += run
	}
	return len(bufs), nil
}

// headerRoom is where writeOne splits a packet: IPv6 and TCP headers together are never
// longer.
const headerRoom = 128

// writeOne delivers one packet unchanged.
func (l *link) writeOne(d stack.NetworkDispatcher, pkt []byte) {
	if protocolOfPacket(pkt) == 0 {
		return
	}
	if transportOf(pkt) == protoTCP && len(pkt) > 4*headerRoom {
		// The headers get a chunk of their own. When gVisor's PullUp looks at the
		// headers of a packet whose chunk is shared, as that of a queued TCP segment
		// is, it copies the whole chunk, up to 64 KB.
		deliver(d, buffer.NewViewWithData(pkt[:headerRoom]), buffer.NewViewWithData(pkt[headerRoom:]))
		return
	}
	view := buffer.NewViewWithData(pkt)
	if isICMP(pkt) && l.icmp.inspect(view.AsSlice()) {
		view.Release()
		return
	}
	deliver(d, view, nil)
}

// deliver hands a packet to the stack and takes over its views; the second may
// be nil.
func deliver(d stack.NetworkDispatcher, head, rest *buffer.View) {
	proto := protocolOfPacket(head.AsSlice())
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(head)})
	if rest != nil {
		pkt.Data().AppendView(rest)
	}
	d.DeliverNetworkPacket(proto, pkt)
	pkt.DecRef()
}

// protocolOfPacket returns the network protocol of an IP packet, 0 for anything else.
// gVisor validates the rest.
func protocolOfPacket(pkt []byte) tcpip.NetworkProtocolNumber {
	switch {
	case len(pkt) >= header.IPv4MinimumSize && pkt[0]>>4 == 4:
		return header.IPv4ProtocolNumber
	case len(pkt) >= header.IPv6MinimumSize && pkt[0]>>4 == 6:
		return header.IPv6ProtocolNumber
	}
	return 0
}

// transportOf returns the protocol in the IP header of a packet that
// protocolOfPacket accepts.
func transportOf(pkt []byte) uint8 {
	if pkt[0]>>4 == 4 {
		return pkt[9]
	}
	return pkt[6]
}

// isICMP reports whether such a packet carries ICMP of its family.
func isICMP(pkt []byte) bool {
	if pkt[0]>>4 == 4 {
		return pkt[9] == protoICMPv4
	}
	return pkt[6] == protoICMPv6
}

// The rest of stack.LinkEndpoint: a link without addresses or headers.

func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}
func (l *link) IsAttached() bool                      { return l.dispatcher.Load() != nil }
func (l *link) MTU() uint32                           { return l.mtu }
func (l *link) SetMTU(uint32)                         {}
func (*link) MaxHeaderLength() uint16                 { return 0 }
func (*link) LinkAddress() tcpip.LinkAddress          { return "" }
func (*link) SetLinkAddress(tcpip.LinkAddress)        {}
func (*link) Wait()                                   {}
func (*link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (*link) AddHeader(*stack.PacketBuffer)           {}
func (*link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (*link) Close()                                  {}
func (*link) SetOnCloseAction(func())                 {}
func (l *link) GSOMaxSize() uint32                    { return l.gsoMax }

func (*link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

func (l *link) SupportedGSO() stack.SupportedGSO {
	if l.gsoMax == 0 {
		return stack.GSONotSupported
	}
	return stack.HostGSOSupported
}
