using System.IO;
using System.Net;
using System.Net.Sockets;
using System.Threading;

/// <summary>Forwards one TCP connection until it is cut; the client keeps its own socket out of reach.</summary>
class Relay
{
    readonly TcpListener listener = new TcpListener(IPAddress.Loopback, 0);
    readonly TcpClient upstream;
    TcpClient downstream;

    public Relay(string host, int port)
    {
        upstream = new TcpClient(host, port);
        listener.Start();
        new Thread(Accept) { IsBackground = true }.Start();
    }

    public int Port
    {
        get { return ((IPEndPoint)listener.LocalEndpoint).Port; }
    }

    /// <summary>Resets both connections.</summary>
    public void Cut()
    {
        foreach (var client in new[] { upstream, downstream })
        {
            client.LingerState = new LingerOption(true, 0);
            client.Close();
        }
    }

    void Accept()
    {
        downstream = listener.AcceptTcpClient();
        listener.Stop();
        new Thread(() => Pump(downstream, upstream)) { IsBackground = true }.Start();
        new Thread(() => Pump(upstream, downstream)) { IsBackground = true }.Start();
    }

    static void Pump(TcpClient from, TcpClient to)
    {
        try
        {
            from.GetStream().CopyTo(to.GetStream());
        }
        catch (IOException)
        {
            // This is what a cut looks like from here.
        }
        catch (System.ObjectDisposedException)
        {
            // Likewise, when it comes between two reads.
        }
        catch (System.InvalidOperationException)
        {
            // Likewise, when it comes before the first one.
        }
    }
}
