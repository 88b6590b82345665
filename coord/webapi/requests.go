package webapi

import (
	"context"

	"weft/coord/ops"
)

// RequestList lists the devices that ask to join.
type RequestList struct {
	Requests []ops.Request `json:"requests"`
}

func (a *api) requests() {
	s := a.ops
	add(a, operation{"GET", "/requests", "listRequests", "List the devices that ask to join without a token, without their codes", "request.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (RequestList, error) {
			list, err := s.Requests(ctx, who)
			return RequestList{list}, err
		})
	add(a, operation{"GET", "/requests/{id}", "getRequest", "Show the device that displays a code; only a few wrong codes may be tried", "request.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.Request, error) {
			return s.Request(ctx, who, in.ID)
		})
	addSent(a, operation{"POST", "/requests/{id}/approve", "approveRequest", "Approve the device that displays a code", "request.approve device.join", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, body ops.ApproveRequest) (ops.Device, error) {
			body.Code = in.ID
			return do(ctx, a, who, body, s.View)
		})
	add(a, operation{"POST", "/requests/{id}/deny", "denyRequest", "Refuse a device, by its code, or by its id if you may list the requests", "request.deny", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.Request, error) {
			return do(ctx, a, who, ops.DenyRequest{Word: in.ID}, same)
		})
}
