//go:build !unix

package pipe

import (
	"io"
	"net"
)

// copySocket copies from a kernel socket. This system cannot report readiness, so a
// buffer is held while waiting.
func copySocket(dst io.Writer, src net.Conn) (int64, error) { return copyAdaptive(dst, src) }
