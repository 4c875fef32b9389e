package media

import (
	"net/url"
	"strconv"
	"time"

	"hearth/server/api"
	"hearth/server/media/picture"
)

// How long a request waits for a file that is to come.
const (
	usualWait = 20 * time.Second
	maxWait   = time.Minute
)

// ReadWait reads timeout_ms: "The maximum number of milliseconds that the
// client is willing to wait to start receiving data, in the case that the content
// has not yet been uploaded. The default value is 20000 (20 seconds). The content
// repository SHOULD impose a maximum value for this parameter."
func ReadWait(q url.Values) (time.Duration, error) {
	if !q.Has("timeout_ms") {
		return usualWait, nil
	}
	ms, err := strconv.ParseUint(q.Get("timeout_ms"), 10, 63)
	if err != nil {
		return 0, api.ErrInvalidParam.Because("timeout_ms must be a number of milliseconds")
	}
	return time.Duration(min(ms, uint64(maxWait/time.Millisecond))) * time.Millisecond, nil
}

// ReadThumbnailRequest reads the parameters of the thumbnail endpoints. The error is
// M_MISSING_PARAM or M_INVALID_PARAM.
func ReadThumbnailRequest(q url.Values) (req picture.Request, err error) {
	if req.Width, err = thumbnailSide(q, "width"); err != nil {
		return req, err
	}
	if req.Height, err = thumbnailSide(q, "height"); err != nil {
		return req, err
	}
	switch method := q.Get("method"); method {
	case "", "scale":
		req.Method = picture.Scale
	case "crop":
		req.Method = picture.Crop
	default:
		return req, api.ErrInvalidParam.Because("method must be scale or crop")
	}
	req.Animated = q.Get("animated") == "true"
	return req, nil
}

// thumbnailSide reads a width or height in pixels.
func thumbnailSide(q url.Values, name string) (int, error) {
	if !q.Has(name) {
		return 0, api.MissingParam(name)
	}
	n, err := strconv.ParseUint(q.Get(name), 10, 31)
	if err != nil || n == 0 {
		return 0, api.ErrInvalidParam.Because("%s must be a number of pixels, more than 0", name)
	}
	return int(n), nil
}
