//go:build mips || mipsle || mips64 || mips64le

package overlay

import (
	"errors"

	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
)

const hasAES = false

// makeAES is not for MIPS.
func (n *Node) makeAES(*bind.Bind, *dataplane.Forwarder) (aesPlane, error) {
	if n.cfg.Suite == SuiteAES {
		return nil, errors.New("this processor has no AES instructions: this program has no suite aes")
	}
	return nil, nil
}
