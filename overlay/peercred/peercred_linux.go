package peercred

import "golang.org/x/sys/unix"

func socketUID(fd uintptr) (uint32, error) {
	cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// chmodSocket sets the mode that the socket's file gets at bind.
func chmodSocket(fd uintptr) error { return unix.Fchmod(int(fd), 0o600) }
