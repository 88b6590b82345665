//go:build !unix

package pipe

import (
	"io"
	"net"
)

// copySocket copies from a kernel socket. Here it cannot be asked whether it is
// readable without a buffer being held for it.
func copySocket(dst io.Writer, src net.Conn) (int64, error) { return copyAdaptive(dst, src) }
