// Package push decides what is worth a notification and sends it. The push rules of
// a user, the predefined ones and his own, and what an event means by them, touch
// neither store nor network. The [Gateway] follows the stream for every pusher and
// tells the push gateways; how rooms look to a user it asks of the client API,
// through function values.
//
// Spec: CS Push Notifications; Push Gateway API.
package push
