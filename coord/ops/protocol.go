package ops

import (
	"fmt"
	"net/http"
	"strconv"

	"weft/overlay/api"
)

// Words for the caller in errors.
const (
	theDevice = "the device"
	theRelay  = "the relay"
)

// checkProtocol refuses a protocol version that this server does not support. The error says
// which side has to be updated.
func checkProtocol(who string, p int) error {
	if p >= api.Oldest && p <= api.Newest {
		return nil
	}
	hint := "update weft on the device: run the line that the console shows for it again"
	switch {
	case p > api.Newest:
		hint = "update weft-server on the server's machine"
	case who == theRelay:
		hint = "update weft-server on the relay's machine"
	}
	return fail(http.StatusBadRequest, api.CodeProtocol, fmt.Sprintf("%s speaks protocol version %d, this server versions %d to %d", who, p, api.Oldest, api.Newest), hint)
}

// checkHeader is checkProtocol for the version in a request's header. Callers from before that
// header was introduced give their version in the body, where it matters.
func (rt route) checkHeader(r *http.Request) error {
	v := r.Header.Get(api.ProtocolHeader)
	if v == "" || rt.forAll {
		return nil
	}
	who := theDevice
	if rt.ofRelays() {
		who = theRelay
	}
	p, err := strconv.Atoi(v)
	if err != nil {
		return fail(http.StatusBadRequest, api.CodeBadRequest, api.ProtocolHeader+": want a number", "")
	}
	return checkProtocol(who, p)
}
