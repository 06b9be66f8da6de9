-- Builds a landscape from a file, and moves the player to the poses that a driver writes to another. From one server
-- step after a pose on, the mark at the lower left of the screen changes at every step between the two colours of
-- the pose's number: pictures that agree under both were drawn one after the other. The driver is luanti.py.

local folder = minetest.get_worldpath() .. "/"
local COLOURS = {"ff0000", "00ff00", "0000ff", "ffff00", "ff00ff", "00ffff"}

local function read(name)
	local file = io.open(folder .. name, "rb")
	if not file then
		return nil
	end
	local text = file:read("*a")
	file:close()
	return text
end

local stage = minetest.parse_json(read("stage.json"))
local blocks = read("stage.blocks")

-- Water moves in the original: a pose met again would not show the same picture.
for _, name in ipairs({"default:water_source", "default:water_flowing"}) do
	local still = {"default_water.png"}
	minetest.override_item(name, {tiles = still, special_tiles = {still[1], still[1]}})
end

minetest.register_on_generated(function(low, high)
	local ids = {}
	for code, name in ipairs(stage.nodes) do
		ids[code - 1] = minetest.get_content_id(name)
	end
	local manip, from, to = minetest.get_mapgen_object("voxelmanip")
	local area, data = VoxelArea:new({MinEdge = from, MaxEdge = to}), manip:get_data()
	for row = math.max(0, -high.z), math.min(stage.rows - 1, -low.z) do
		for column = math.max(0, low.x), math.min(stage.columns - 1, high.x) do
			local start = (row * stage.columns + column) * stage.levels + 1
			for level = math.max(0, low.y), math.min(stage.levels - 1, high.y) do
				data[area:index(column, level, -row)] = ids[blocks:byte(start + level)]
			end
		end
	end
	manip:set_data(data)
	manip:calc_lighting()
	manip:write_to_map()
end)

local walker, mark, shown
local step = 0

minetest.register_on_joinplayer(function(player)
	player:set_physics_override({speed = 0, jump = 0, gravity = 0, sneak = false})
	-- The feet are at the eye, off the ground: on it, the camera would climb steps slowly.
	player:set_properties({eye_height = 0, collisionbox = {-0.1, 0, -0.1, 0.1, 0.1, 0.1}, visual_size = {x = 0, y = 0}})
	player:hud_set_flags({
		hotbar = false, healthbar = false, crosshair = false, wielditem = false, breathbar = false, minimap = false,
		basic_debug = false, chat = false,
	})
	player:set_sky({type = "plain", base_color = "#bcd2ec", clouds = false})
	mark = player:hud_add({
		hud_elem_type = "image", position = {x = 0, y = 1}, alignment = {x = 1, y = -1}, scale = {x = -4, y = -8},
		text = "default_stone.png^[colorize:#000000:255",
	})
	walker = player
end)

minetest.register_globalstep(function()
	if not walker then
		return
	end
	local number, x, y, z, yaw, pitch = (read("pose") or ""):match("^(%d+) (%S+) (%S+) (%S+) (%S+) (%S+)")
	if not number then
		return
	end
	if number ~= shown then
		shown = number
		walker:set_pos({x = tonumber(x), y = tonumber(y), z = tonumber(z)})
		walker:set_look_horizontal(tonumber(yaw))
		walker:set_look_vertical(tonumber(pitch))
		return
	end
	step = 1 - step
	local colour = COLOURS[tonumber(number) % 3 * 2 + step + 1]
	walker:hud_change(mark, "text", "default_stone.png^[colorize:#" .. colour .. ":255")
end)
