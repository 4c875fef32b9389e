// Package push decides what is worth a notification: the push rules of a user,
// the predefined ones and his own, and what an event means by them. It owns the
// form of rules and the predefined list, and touches neither store nor network.
//
// Spec: CS Push Notifications.
package push
