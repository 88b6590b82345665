//go:build !mips && !mipsle && !mips64 && !mips64le

package overlay

import (
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/gcm"
)

// hasAES says that this program has the suite. MIPS has no AES instructions, and its
// machines have little room.
const hasAES = true

// makeAES makes the data plane of AES, or returns nil if the node is not to use it. When
// FIPS mode is enforced it is the only one, however fast.
func (n *Node) makeAES(b *bind.Bind, f *dataplane.Forwarder) (aesPlane, error) {
	if n.cfg.Suite == SuiteWireGuard || n.cfg.Suite == SuiteAuto && !n.tuning.aes && !n.strict && !gcm.Fit() {
		return nil, nil
	}
	return gcm.New(gcm.Config{Forwarder: f, Bind: b, Alone: n.strict, Log: n.log, Jumped: func() {
		if p := n.tunnels(); p != nil {
			p.Jumped()
		}
	}, Wall: n.tuning.stamps})
}
