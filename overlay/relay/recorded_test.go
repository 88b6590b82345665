package relay

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"slices"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/wiretest"
	"weft/overlay/cert"
	"weft/overlay/relay/lane"
)

var update = flag.Bool("update", false, "record what is not recorded yet")

func body(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every type of frame of protocol 1.
func TestRecordedFrames(t *testing.T) {
	peer := cert.NodeID{0: 1, 15: 16}
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	versions := api.Versions{Config: api.Version{Epoch: 1, N: 2}, Directory: api.Version{Epoch: 1, N: 3}, CRL: 4}
	info := lane.Info{Send: lane.ID{0: 1}, Recv: lane.ID{0: 2}, Key: lane.Key{0: 3}, Idle: time.Minute}
	documents := map[string]any{
		"versions": versions, // from an earlier version
		"holds":    Holds{versions, "process"},
		"welcome":  Welcome{ServerTime: at, Versions: versions, SpreadMS: 5, Lanes: true, Away: true},
		"nudge":    Nudge{Versions: versions, SpreadMS: 5, Away: true},
		"draining": Draining{SpreadMS: 5},
	}
	wiretest.Golden(t, "testdata/documents-1.json", body(t, documents), *update)
	toRelay := map[string][]byte{
		"packet":   AppendPeerFrame(nil, TypePacket, peer, []byte("wireguard")),
		"session":  AppendPeerFrame(nil, TypeSession, peer, []byte("introduction")),
		"ping":     AppendFrame(nil, TypePing, []byte("12345678")),
		"pong":     AppendFrame(nil, TypePong, []byte("12345678")),
		"ask-lane": AppendPeerFrame(nil, TypeLane, peer, nil),
	}
	toNode := map[string][]byte{
		"gone":      AppendPeerFrame(nil, TypeGone, peer, []byte{byte(GoneSilent)}),
		"busy":      AppendPeerFrame(nil, TypeBusy, peer, nil),
		"replaced":  AppendFrame(nil, TypeReplaced),
		"crl":       AppendFrame(nil, TypeCRL, []byte("der")),
		"refused":   AppendFrame(nil, TypeRefused, []byte{byte(RefusedUnknown)}),
		"lane":      AppendPeerFrame(nil, TypeLane, peer, lane.AppendInfo(nil, info)),
		"lane-gone": AppendPeerFrame(nil, TypeLaneGone, peer, []byte{byte(LaneIdle)}),
		"rebind":    AppendPeerFrame(nil, TypeRebind, peer, nil),
	}
	all := map[string][]byte{}
	for name, f := range toRelay {
		all[name] = f
		if err := CheckHead(AtRelay, Type(f[0]), FrameLen(f)-HeadLen); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, f := range toNode {
		all[name] = f
	}
	wiretest.GoldenBytes(t, "testdata/frames-1.json", all, *update)

	// A later relay sends unknown types, more fields and more bytes after them. A node
	// still reads what it knows.
	var in []byte
	var want []Type
	for _, f := range toNode {
		typ := Type(f[0])
		f = slices.Clone(f)
		if typ != TypeCRL { // DER contains its length
			f = AppendFrame(nil, typ, f[HeadLen:], []byte("later"))
		}
		in = AppendFrame(append(in, f...), 200, []byte("of a later relay"))
		want = append(want, typ, 200)
	}
	for name, typ := range map[string]Type{"welcome": TypeWelcome, "nudge": TypeNudge, "draining": TypeDraining} {
		in = AppendFrame(in, typ, wiretest.Later(t, body(t, documents[name])))
		want = append(want, typ)
	}
	r := NewReader(&bytesConn{b: in, n: 1000}, AtNode)
	h := &received{}
	c := &Conn{h: h}
	var got []Type
	for {
		if err := r.Fill(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for f := r.Next(); f != nil; f = r.Next() {
			got = append(got, Type(f[0]))
			if err := c.frame(f); err != nil && Type(f[0]) != TypeReplaced && Type(f[0]) != TypeRefused {
				t.Errorf("type %d: %v", f[0], err)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if h.gone != GoneSilent || h.lane != info || h.laneGone != LaneIdle || h.welcome.Versions != versions || h.nudge.SpreadMS != 5 || h.draining.SpreadMS != 5 || !bytes.Equal(h.crl, []byte("der")) {
		t.Errorf("%+v", h)
	}
}

// received is a node's handler that records its calls.
type received struct {
	Handler
	gone     GoneReason
	lane     lane.Info
	laneGone LaneReason
	welcome  Welcome
	nudge    Nudge
	draining Draining
	crl      []byte
}

func (h *received) Gone(_ cert.NodeID, r GoneReason)     { h.gone = r }
func (h *received) Busy(cert.NodeID)                     {}
func (h *received) Replaced()                            {}
func (h *received) CRL(der []byte)                       { h.crl = bytes.Clone(der) }
func (h *received) Lane(_ cert.NodeID, i lane.Info)      { h.lane = i }
func (h *received) LaneGone(_ cert.NodeID, r LaneReason) { h.laneGone = r }
func (h *received) LaneRebind(cert.NodeID)               {}
func (h *received) Welcome(w Welcome)                    { h.welcome = w }
func (h *received) Nudge(n Nudge)                        { h.nudge = n }
func (h *received) Draining(d Draining)                  { h.draining = d }
