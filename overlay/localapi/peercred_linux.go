package localapi

import "golang.org/x/sys/unix"

func socketUID(fd int) (uint32, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// chmodSocket sets the mode that the socket's file gets at bind.
func chmodSocket(fd int, mode uint32) error { return unix.Fchmod(fd, mode) }
