from amqplib import client_0_8 as amqp

conn = amqp.Connection(host="localhost:5672 ", userid="guest",
password="guest", virtual_host="/", insist=False)
chan = conn.channel()

msg = chan.basic_get("po_box")
print msg.body
chan.basic_ack(msg.delivery_tag)

chan.close()
conn.close()
